"""The training loop. It knows no GAN: it takes any assembly and any batches.

The order of what happens after a step matters, so it is written here, in one place: log, look at pictures, paint
samples, save a checkpoint, score, keep the best, recover, stop.

Several processes may train together (``docs/distributed.md``). All of them run this loop, and take every branch alike:
what only one can know, the first one decides for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import torch
from rich.console import Console
from torch import Tensor, nn

from ganparts.adversarial import (
    Averages,
    GradientAverage,
    TrainingSettings,
    average_scalars,
    make_optimizers,
)
from ganparts.blocks import evaluating, recompute_blocks
from ganparts.distributed import from_first, is_first, processes
from ganparts.pretrained import ModelCard, describe_network, from_pretrained
from ganparts.training.budget import TimeBudget, changed_length, resumed_length
from ganparts.training.folder import RunFolder
from ganparts.training.monitor import Monitor
from ganparts.training.options import EvaluationOptions
from ganparts.training.planning import make_plan
from ganparts.training.randomness import random_states, set_random_states
from ganparts.training.scoring import Score, Scoring, own_randomness
from ganparts.training.starting import start_discriminators_from, start_from
from ganparts.training.stopping import StopSignals
from ganparts.training.together import join_others
from ganparts.training.watch import Watch

__all__ = ["Batches", "Ended", "Loop"]

LOOK_EVERY = 100  # steps between two looks at pictures for what may go wrong
_VERY_LONG = 10**9  # steps


class Batches(Protocol):
    """Makes the batches of steps ``start`` to ``steps``, on the device; endless if ``steps`` is None."""

    def __call__(self, *, start: int, steps: int | None) -> Iterable[Any]: ...


class Ended(NamedTuple):
    """How a run ended.

    Args:
        step: steps done.
        steps: of the whole run.
        reason: why it stopped before its end; None if it did not.
        by_signal: whether a signal stopped it, so that there is no time for evaluation and painting.
    """

    step: int
    steps: int | None
    reason: str | None
    by_signal: bool


class Loop:
    """Trains an assembly, and records the run in a run folder.

    It chooses how a step is computed on the device (:func:`choose_policy`), plans memory, makes optimizers and moving
    averages, resumes, logs, looks for what goes wrong, samples, saves, scores, recovers and stops.

    Args:
        model: the assembly, on the CPU; its generators were built by name, so that they can be exported.
        options: of the run; also :class:`PolicyOptions`, and :class:`EvaluationOptions` if ``score`` is given.
        settings: optimizer, schedule and batch size.
        device: to train on.
        example: makes a batch of a given size, of any values, for the memory estimate.
        samples: images for sample grids, float [N, 3, H, W] in [-1, 1].
        settled: further numbers of the run, for its record; a resumed run must have the same.
        card: facts for the model card: ``preset``, ``data``.
        score: makes what scores a generator (see ``Score`` in ``scoring.py``); called once training begins. None for
            no scores.
        after: pixels that will be translated after training; ``--hours`` leaves time for them.
        console: where to print.
        clock: seconds; for ``--hours``.

    Raises:
        ValueError: a batch does not fit in memory, the device cannot do what is asked, a generator was not built by
            name, a resumed run had other numbers or parts, or there is patience without evaluations.
    """

    def __init__(
        self,
        model: Any,
        options: Any,
        *,
        settings: TrainingSettings,
        device: torch.device,
        example: Callable[[int], Any],
        samples: Tensor,
        settled: Mapping[str, Any],
        card: Mapping[str, Any] | None = None,
        score: Callable[[], Score] | None = None,
        after: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.options, self.settings, self.device = options, settings, device
        self.console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not is_first():
            self.console = Console(quiet=True)
        self.clock, self.after, self.card_facts = clock, after, dict(card or {})
        self._began = clock()
        for network in model.stages().values():
            describe_network(network)  # refuses now, not after training, one that could not be saved
        self.scoring = Scoring(EvaluationOptions() if score is None else options, score, device, clock)
        if options.resume is None and is_first():
            start_from(model, options.init)
            if options.init_discriminators is not None:
                start_discriminators_from(model, options.init_discriminators)
        self.plan = make_plan(model, example, options=options, settings=settings, device=device)
        self.model = model.to(device)
        self.plan.policy.prepare(self.model)
        recompute_blocks(self.model, self.plan.level == "lowest")
        if processes() > 1:
            join_others(self.model, sync_batch_norm=options.sync_batch_norm)
        self.optimizers = make_optimizers(
            self.model,
            **settings.optimizer_numbers(),
            scaling=self.plan.policy.scaling,
            skip_nonfinite=options.on_nonfinite == "skip",
            average=GradientAverage() if processes() > 1 else None,
        )
        self._trained: dict[str, Any] = {"model": self.model, "optimizers": self.optimizers}
        self.averages = None
        if settings.ema_decay is not None:
            self._trained["averages"] = self.averages = Averages(self.model.stages(), decay=settings.ema_decay)
        self.samples = samples.to(device)
        path = options.folder
        self.watch = Watch(path / "warnings.jsonl", say=lambda finding: self.console.print(f"warning: {finding}"))
        self.folder = RunFolder(
            path,
            options=vars(options),
            settled={
                **settings.numbers(),
                **settled,
                "device": device.type,
                "precision": self.plan.policy.precision,
                "memory": self.plan.level,
            },
            parts=self.model.parts(),
            **self._trained,
            watch=self.watch,
        )
        self._side_stream = self.plan.policy.side_stream()

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The generators by name, averaged if averages are kept."""
        return dict(self.model.stages()) if self.averages is None else self.averages.networks

    def fits_beside(self, nbytes: int) -> bool:
        """Whether so many bytes of data fit on a GPU beside training."""
        return self.plan.fits_beside(nbytes)

    def describe(self) -> list[str]:
        """How steps are computed, and why, in lines."""
        return self.plan.describe()

    def announce(self, batch: str, *, scaled_down: Sequence[str] = ()) -> None:
        """Print what is trained, how a step is computed, and where everything goes.

        Args:
            batch: size of images and batches, in words.
            scaled_down: what is smaller than in the preset, for a CPU.
        """
        first, *_ = self.model.stages()
        generator = self.folder.config["parts"][first]
        self.console.print(
            f"Preset {self.card_facts.get('preset')} on {self.device}: {generator}, {batch}; "
            f"everything goes to {self.folder.path}"
        )
        if scaled_down:
            self.console.print(f"Scaled down for a CPU, where no option was given: {'; '.join(scaled_down)}.")
        for line in self.describe():
            self.console.print(f"  {line}")

    def run(self, batches: Batches, *, steps: int | None) -> Ended:
        """Train until the end, or until something asks to stop; the run folder's ``state`` then says which.

        Of several processes, each gives its own share of a step's batch; :func:`~ganparts.data.load_pairs` does so.

        Args:
            batches: makes the batches of a range of steps. If ``options.hours`` decides the length, it is called again
                whenever that becomes known or changes.
            steps: of the whole run; None if ``options.hours`` decides.

        Raises:
            NotFiniteError: numbers are not finite, and going back does not help or is not wanted.
        """
        found = self.folder.start(resume=self.options.resume is not None)
        start = 0 if found is None else found.step
        randomness = random_states()  # of the first checkpoint
        if found is not None:
            steps = resumed_length(steps, found, self.options, self.settings.schedule)
        self.folder.settle(steps=steps)
        self.scoring.prepare()
        budget = None
        if steps is None:
            budget = TimeBudget(self.options.hours, began=self._began, done=start, clock=self.clock)
        if is_first():
            self.watch.forget_beyond(start)
        monitor = self._make_monitor(start, steps)
        self.console.print(f"{start} of {steps if steps is not None else '?'} steps are done.")
        train = self.plan.policy.wrap(
            self._train_once,
            networks=tuple(self.model.stages().values()),
            phase=self.model.phase,
            guarded=None if self.optimizers.scaler is None else nn.ModuleList(self._networks()),
            **self._trained,
        )
        coming = monitor.timed(batches(start=start, steps=steps))
        # last: whatever was built above may have drawn random numbers, in a new run as in one that goes on
        set_random_states(randomness) if found is None else found.restore_random_states()
        step = start
        with StopSignals(time_limit=self.options.time_limit) as stop, monitor:
            if start:
                self._make_up_for(start, stop, last=start == steps)
            ended_before = bool(start) and stop.agree().requested
            while not ended_before and (batch := self._next(coming, step)) is not None:
                # until the length is known, the first step's
                factor = self.settings.schedule(step, steps) if steps else self.settings.schedule(0, _VERY_LONG)
                self.optimizers.scale_rates(factor)
                losses = train(batch, step)
                step += 1
                asked, hurry = stop.agree()
                if budget is not None and budget.is_due(step) and step != steps and not asked:
                    before, steps = steps, self._planned_length(budget, step, steps)
                    if steps is not None and steps != before:
                        self._settle_length(step, steps, before, monitor)
                        with own_randomness(self.device):
                            coming = monitor.timed(batches(start=step, steps=steps))
                last = step == steps or asked
                saved = self._after_step(step, steps, losses, factor, monitor, stop, last=last, hurry=hurry)
                if last or (saved and stop.agree().requested):  # asked meanwhile; else the next step is the last
                    break
            else:
                if step != steps and not ended_before:
                    self.folder.save(step)
                    raise ValueError(f"the batches ended after step {step} of {steps or '?'}: check what makes them")
        finished = step == steps and not stop.by_signal
        ended = Ended(step, steps, None if finished else stop.reason, stop.by_signal)
        if ended.reason is not None:
            self.console.print(
                f"Stopped by {ended.reason} after step {step} of {steps or '?'}; --resume {self.folder.path} goes on."
            )
        self.folder.state = "stopped" if ended.reason else "finished"
        return ended

    def _make_monitor(self, start: int, steps: int | None) -> Monitor:
        return Monitor(
            self.folder.losses if is_first() else None,
            steps=steps,
            start=start,
            pairs=self.settings.batch_size * processes(),
            every=self.options.log_every,
            console=self.console,
            tensorboard=self.folder.path / "tensorboard" if self.options.tensorboard and is_first() else None,
        )

    def _planned_length(self, budget: TimeBudget, step: int, steps: int | None) -> int | None:
        """The steps of the whole run, by the time that they took lately; None while that is not known."""
        pace = from_first(lambda: budget.measure(step, self._wait, aside=self.scoring.seconds))
        if pace is None:
            return steps
        budget.put_off(step, steps)
        if steps is None:
            generator, *_ = self.stages.values()
            evaluation, often = self.scoring.cost(generator), self.scoring.options.evaluate_every or 1
            # the last step is evaluated, too
            budget.set_aside(evaluation=evaluation / often, painting=evaluation + self._cost_of_painting())
        planned = from_first(lambda: budget.steps(step, pace))
        return changed_length(steps, planned, self.settings.schedule, done=step, until=budget.due)

    def _make_up_for(self, step: int, stop: StopSignals, *, last: bool) -> None:
        """What a run does after the checkpoint that this one resumes from, if it was killed meanwhile."""
        generator, *_ = self.stages.values()
        if self.scoring.due(step, last=last) and not from_first(lambda: self.folder.scores.has(step)):
            self._evaluate(step, generator, stop)
        if not self.folder.scores.begun:
            self._export(step)

    def _networks(self) -> list[nn.Module]:
        return [self.model] if self.averages is None else [self.model, self.averages]

    def _next(self, batches: Iterator[Any], step: int) -> Any | None:
        """The next batch, None after the last; where the data are at fault, what was learned so far is kept."""
        try:
            return next(batches, None)
        except ValueError:
            # the others are in the middle of a step, and cannot take part in a checkpoint
            if processes() == 1 and self.folder.save(step) and not self.folder.scores.begun:
                self._export(step)
            raise

    def _train_once(self, batch: Any, number: int) -> dict[str, Tensor]:
        low_memory = self.plan.level != "fast"
        losses = self.model.train_step(
            batch, self.optimizers, step=number, low_memory=low_memory, side_stream=self._side_stream
        )
        if self.averages is not None:
            self.averages.update()
        return losses

    def _after_step(
        self,
        step: int,
        steps: int | None,
        losses: dict[str, Tensor],
        factor: float,
        monitor: Monitor,
        stop: StopSignals,
        *,
        last: bool,
        hurry: bool,
    ) -> bool:
        """Everything between two steps, in this order; whether there is a checkpoint of this step."""
        options = self.options
        finite = self._log(step, losses, factor, monitor) if monitor.is_due(step) else True
        generator, *_ = self.stages.values()
        if step % LOOK_EVERY == 0 and is_first():
            self.watch.pictures(step, generator, self.samples)
        sample_every = options.sample_every or max(1, (steps or 1000) // 10)
        if (step % sample_every == 0 or last) and not hurry:
            self.folder.save_samples(step, self.samples, tuple(self.stages.values()))
        scored = self.scoring.due(step, last=last) and not hurry
        due = step % options.checkpoint_every == 0 or last or scored
        if finite and due:
            finite = self.folder.save(step)
            if finite and not self.folder.scores.begun:
                self._export(step)
        if not finite:
            back = self.folder.recover(step, options.on_nonfinite)
            self.console.print(f"Not finite at step {step}: going on with the weights of step {back}.")
            if last and not self.folder.scores.begun:
                self._export(back)
        if scored:
            self._evaluate(step, generator, stop)
        return due or not finite

    def _log(self, step: int, losses: dict[str, Tensor], factor: float, monitor: Monitor) -> bool:
        scale = self.optimizers.loss_scale if self.plan.policy.scaling else None
        row = average_scalars(losses) | self.optimizers.gradient_norms(self.model.networks())
        row |= {} if scale is None else {"loss_scale": scale}

        def look() -> bool:
            values = monitor.log(step, row, factor * self.settings.learning_rate)
            skipping = self.options.on_nonfinite == "skip"
            return self.watch.numbers(step, values, scaled=self.plan.policy.scaling, skipping=skipping)

        finite = from_first(look)
        self.folder.refresh_report()
        return finite

    def _evaluate(self, step: int, generator: nn.Module, stop: StopSignals) -> None:
        scores = self.scoring.scores(generator)
        reason = self.scoring.reason_to_stop(from_first(partial(self._keep_scores, step, scores)))
        if reason is not None:
            stop.request(reason)

    def _keep_scores(self, step: int, scores: Any) -> int:
        """Keep a generator if its scores are the best; how many scores there were since the best."""
        values, metric = scores.values(), self.scoring.options.metric
        stale = self.folder.scores.since_best(values[metric], metric=metric)
        if stale == 0:
            self.scoring.best = scores
            self._export(step)
        self.folder.scores.save(step, values, metric=metric, best=stale == 0)
        return stale

    def _export(self, step: int) -> None:
        if not is_first():
            return
        told = self.scoring.best.told() if self.scoring.best is not None else {}
        card = ModelCard(**self.card_facts, scores=told, steps=step, picture=self.folder.newest_sample())
        self.folder.export(self.stages, card)

    def exported(self) -> nn.Module:
        """The first generator as it was last exported, on the device: the best scored one, else the newest.

        Of several processes the first one has the run folder; the others rebuild the generator from its files.
        """
        if processes() == 1:
            return from_pretrained(self.folder.generator).to(self.device)
        files = from_first(lambda: {path.name: path.read_bytes() for path in self.folder.generator.iterdir()})
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            return from_pretrained(folder).to(self.device)

    def _settle_length(self, step: int, steps: int, before: int | None, monitor: Monitor) -> None:
        """Write down how long the run will be, and keep it in a checkpoint."""
        monitor.set_length(steps)
        self.folder.settle(steps=steps)
        self.folder.save(step)
        instead = "" if before is None else f", not {before}"
        self.console.print(f"{self.options.hours:g} hours are enough for {steps} steps{instead}.")

    def _cost_of_painting(self) -> float:
        """Seconds that it takes to translate the images after training."""
        if not self.after:
            return 0.0
        generator, *_ = self.stages.values()
        before = self.clock()
        with torch.no_grad(), evaluating(generator):  # which draws no dropout, and leaves batch norms alone
            generator(self.samples)
        self._wait()
        pixels = len(self.samples) * self.samples.shape[2] * self.samples.shape[3]
        return self.after / processes() * (self.clock() - before) / pixels

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
