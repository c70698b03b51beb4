"""Begin a run with weights of earlier ones (``--init``, ``--init-discriminators``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ganparts.pretrained import from_pretrained
from ganparts.training.checkpoint import CHECKPOINT, newest_checkpoint
from ganparts.training.record import describe_part

__all__ = ["start_discriminators_from", "start_from"]


def start_from(model: Any, sources: tuple[str, ...]) -> None:
    """Load trained generators; a run folder has all of an assembly's.

    Raises:
        ValueError: too many sources, or one that holds another network.
    """
    stages = dict(model.stages())
    if len(sources) > len(stages):
        raise ValueError(f"--init takes at most {len(stages)} models, for {', '.join(stages)}: {' '.join(sources)}")
    given = dict(zip(stages, sources, strict=False))
    for name in list(stages)[len(sources) :]:
        if sources and (Path(sources[0]) / name).is_dir():
            given[name] = str(Path(sources[0]) / name)
    for name, source in given.items():
        trained = from_pretrained(source)
        # weights may fit where padding or upsampling differ: those show in the text of a module
        if type(trained) is not type(stages[name]) or str(trained) != str(stages[name]):
            raise ValueError(
                f"--init {source} holds {describe_part(trained)}, but {name} is {describe_part(stages[name])}: build "
                "it with the same name and options"
            )
        stages[name].load_state_dict(trained.state_dict())


def start_discriminators_from(model: Any, run: Path) -> None:
    """Load the discriminators of a run's newest checkpoint.

    Raises:
        ValueError: the run has no such discriminators, or the model has none.
        FileNotFoundError: there is no checkpoint.
    """
    networks = model.networks().get("discriminators", {})
    if not networks:
        raise ValueError(f"--init-discriminators {run}: this method trains no discriminators: leave the option out")
    found = newest_checkpoint(run / CHECKPOINT)
    saved, places = found.states["model"], {id(module): name for name, module in model.named_modules()}
    for name, network in networks.items():
        prefix = f"{places[id(network)]}."
        state = {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}
        try:
            network.load_state_dict(state)
        except RuntimeError:
            before = found.config["parts"].get(name, "none")
            raise ValueError(
                f"--init-discriminators {run}: its {name} is {before}, but here it is {describe_part(network)}: build "
                "it with the same name and options"
            ) from None
