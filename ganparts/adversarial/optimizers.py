"""The optimizers of an assembly, as one object for its training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import nextafter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from ganparts.adversarial.adam import AdamBuilder
from ganparts.blocks import check_weight

if TYPE_CHECKING:
    from ganparts.adversarial.assembly import Assembly

__all__ = ["OptimizerBuilder", "Optimizers", "make_optimizers", "trained_parameters"]

_FORMS = ("lr", "initial_lr", "fused", "capturable", "foreach")  # how the arithmetic is done, and where the rate lies

OptimizerBuilder = Callable[[list[nn.Parameter]], Optimizer]
"""Makes an optimizer of parameters: ``partial(torch.optim.AdamW, lr=1e-4)``, or one of timm's."""


def trained_parameters(*networks: nn.Module) -> list[nn.Parameter]:
    """The parameters of networks that are trained, each once."""
    parameters = (parameter for network in networks for parameter in network.parameters() if parameter.requires_grad)
    return list(dict.fromkeys(parameters))


class Optimizers(Mapping[str, Optimizer]):
    """Optimizers by name: ``optimizers["generators"]``.

    A step calls :meth:`zero_grad`, :meth:`backward` for each loss, and :meth:`step`. Gradients stay in ``.grad`` until
    the next step, so they can be looked at.

    With a ``scaler``, losses are multiplied before they go backward, so that gradients do not vanish in fp16, and
    gradients are divided again in :meth:`step`. If an optimizer's gradients are not finite, it skips this step and the
    loss scale is lowered. The other optimizers still step.

    Args:
        optimizers: by name, in the order in which they step.
        scaler: one for all (Micikevicius et al. 2017, arXiv 1710.03740), or None.
        before_step: functions to call with each optimizer just before it steps, when its gradients are complete and
            unscaled: to clip gradients.
        average: called with each optimizer when its gradients are complete, still scaled and before anything looks
            whether they are finite: :class:`GradientAverage`, which averages them over processes.
    """

    def __init__(
        self,
        optimizers: Mapping[str, Optimizer],
        scaler: GradScaler | None = None,
        before_step: Sequence[Callable[[Optimizer], object]] = (),
        average: Callable[[Optimizer], object] | None = None,
    ):
        self._optimizers = dict(optimizers)
        self.scaler = scaler
        self.before_step = tuple(before_step)
        self.average = average
        self._stepped: set[str] = set()
        self._overflow: dict[str, Tensor] = {}
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", float(group["lr"]))

    def __getitem__(self, name: str) -> Optimizer:
        return self._optimizers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._optimizers)

    def __len__(self) -> int:
        return len(self._optimizers)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for optimizer in self.values():
            optimizer.zero_grad()

    def gradient(self, loss: Tensor, at: Tensor, *, retain_graph: bool = False) -> Tensor:
        """The gradient of ``loss`` at an image, a leaf. Pass it to :meth:`backward`."""
        self._scaled(loss).backward(inputs=[at], retain_graph=retain_graph)
        assert at.grad is not None
        return at.grad

    def backward(self, loss: Tensor, inputs: Iterable[Tensor], *, onward: tuple[Tensor, Tensor] | None = None) -> None:
        """Add the gradient of ``loss`` to ``inputs``, and to nothing else; without inputs, do nothing.

        Args:
            loss: a scalar.
            inputs: the parameters.
            onward: an image and what :meth:`gradient` gave for it. That gradient is propagated from the image in the
                same pass, if trained weights made the image.
        """
        inputs = list(inputs)
        if not inputs:
            return
        loss = self._scaled(loss)
        if onward is None or not onward[0].requires_grad:
            torch.autograd.backward(loss, inputs=inputs)
        else:
            torch.autograd.backward([loss, onward[0]], [None, onward[1]], inputs=inputs)

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self, *names: str) -> None:
        """Update the networks of the named optimizers, all if none is named.

        The loss scale is updated once all optimizers have stepped.
        """
        for name in names or self:
            optimizer = self[name]
            if self.average is not None:  # first: then all processes find the same gradients finite, or not
                self.average(optimizer)
            if self.scaler is None:
                self._call_before(optimizer)
                if any(group.get("fused") and group["params"][0].is_cpu for group in optimizer.param_groups):
                    _lay_out(optimizer)
                optimizer.step()
            else:
                if self.before_step:
                    self.scaler.unscale_(optimizer)
                    self._call_before(optimizer)
                self.scaler.step(optimizer)
                self._note_overflow(name)
            self._stepped.add(name)
        if self._stepped == set(self):
            self._stepped.clear()
            if self.scaler is not None:
                self.scaler.update()

    def _call_before(self, optimizer: Optimizer) -> None:
        for function in self.before_step:
            function(optimizer)

    def _note_overflow(self, name: str) -> None:
        """Remember by how much gradients stay multiplied where a fused optimizer skipped its step."""
        assert self.scaler is not None
        if not any(group.get("fused") for group in self[name].param_groups) or self.before_step:
            return  # these divide their gradients before they look at them
        found = self.scaler._found_inf_per_device(self[name])
        scale = self.scaler._scale
        if found and scale is not None:
            total = torch.stack([value.to(scale.device) for value in found.values()]).sum()
            self._overflow[name] = torch.where(total > 0, scale, torch.ones_like(scale))

    @property
    def loss_scale(self) -> Tensor | None:
        """The factor on losses, a scalar on the device; None without a scaler or before the first step."""
        return None if self.scaler is None else self.scaler._scale

    @torch.no_grad()
    def gradient_norms(self, networks: Mapping[str, Mapping[str, nn.Module]]) -> dict[str, Tensor]:
        """The norm of each network's gradients after a step, scalars on the device: ``grad_norm_<name>``.

        Args:
            networks: by optimizer and name, as :meth:`~ganparts.adversarial.Assembly.networks` gives them.
        """
        norms = {}
        for optimizer, members in networks.items():
            for name, network in members.items():
                gradients = [p.grad for p in network.parameters() if p.grad is not None]
                if not gradients:  # of a frozen network; the zero lies beside the other norms
                    gradients = [parameter.new_zeros(()) for parameter in network.parameters()]
                norm = torch.nn.utils.get_total_norm(gradients)
                norms[f"grad_norm_{name}"] = norm / self._overflow.get(optimizer, 1)
        return norms

    def scale_rates(self, factor: float) -> None:
        """Set every learning rate to ``factor`` times its initial one; a rate on the device is changed in place."""
        for optimizer in self.values():
            for group in optimizer.param_groups:
                _set_rate(group, factor * group["initial_lr"])

    def state_dict(self) -> dict[str, Any]:
        """The state of each optimizer, by name, and the scaler's."""
        states = {name: optimizer.state_dict() for name, optimizer in self.items()}
        return states if self.scaler is None else states | {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` gave on any device; this device's forms (fused, capturable) stay.

        Existing tensors are filled in place, so a captured CUDA graph stays valid after a load.
        """
        for name, optimizer in self.items():
            saved = state[name]["param_groups"]
            groups = zip(saved, optimizer.param_groups, strict=True)
            own = [group | {form: mine[form] for form in _FORMS if form in mine} for group, mine in groups]
            before, rates = dict(optimizer.state), [group["lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict({**state[name], "param_groups": own})  # which copies the rates, too
            _lay_out(optimizer)
            _fill_in_place(optimizer, before)
            for group, rate, theirs in zip(optimizer.param_groups, rates, saved, strict=True):
                group["lr"] = rate
                _set_rate(group, float(theirs["lr"]))
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


@torch.no_grad()
def _lay_out(optimizer: Optimizer) -> None:
    """Give gradients and states the memory layout of their parameters, which fused forms demand.

    On CUDA these refuse other layouts. On a CPU they would mix the values up without an error.
    """
    for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
        if parameter.grad is not None:
            parameter.grad = _laid_out(parameter.grad, parameter)
    for parameter, tensors in optimizer.state.items():
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:  # some count steps with numbers
                tensors[name] = _laid_out(tensor, parameter)


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The tensor, or a copy of it if its memory layout is not that of the parameter."""
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)


def _fill_in_place(optimizer: Optimizer, before: dict[Tensor, dict[str, Any]]) -> None:
    """Give an optimizer its former tensors back, with the values that it has now; zeros where it has none.

    A state with anything but tensors is left as it was loaded: a captured graph cannot hold it anyway.
    """
    for parameter, tensors in before.items():
        if not all(isinstance(value, Tensor) for value in tensors.values()):
            continue
        loaded = optimizer.state.get(parameter, {})
        for name, tensor in tensors.items():
            tensor.copy_(loaded[name]) if name in loaded else tensor.zero_()
        optimizer.state[parameter] = tensors


def _set_rate(group: dict[str, Any], learning_rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(learning_rate)
    else:
        group["lr"] = learning_rate


def make_optimizers(
    model: Assembly,
    *,
    learning_rate: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    eps: float = 1e-8,
    rates: Mapping[str, float] | None = None,
    builders: Mapping[str, OptimizerBuilder] | None = None,
    scaling: bool = False,
    skip_nonfinite: bool = False,
    average: Callable[[Optimizer], object] | None = None,
) -> Optimizers:
    """One optimizer for each group of networks of an assembly: Adam (Kingma and Ba 2014, arXiv 1412.6980).

    Move the model to its device first: parameters on CUDA get Adam's fused, capturable form.

    Args:
        model: the assembly, such as a :class:`~ganparts.CycleGAN`.
        learning_rate: of every group.
        betas: Adam's; the paper's CycleGAN has 0.5 and 0.999.
        eps: Adam's; Keras has 1e-7.
        rates: learning rates of groups that have one of their own, for example ``{"discriminators": 4e-4}``
            (TTUR, Heusel et al. 2017, arXiv 1706.08500).
        builders: for groups that take another optimizer, a function of their parameters, for example
            ``{"generators": partial(torch.optim.AdamW, lr=1e-4)}``. Rates and betas are then its own.
        scaling: scale losses, as fp16 needs.
        skip_nonfinite: skip a step whose gradients are not finite; so does ``scaling``.
        average: averages gradients over processes, see :class:`Optimizers`.

    Raises:
        TypeError: ``model`` is not an assembly.
        ValueError: a rate or builder for a group that the model does not have, or a rate or beta out of range.
    """
    if not hasattr(model, "networks"):
        raise TypeError(
            f"make_optimizers takes an assembly such as build_cyclegan() makes, but was given a {type(model).__name__}"
        )
    rates, builders = dict(rates or {}), dict(builders or {})
    check_weight("learning_rate", learning_rate)
    check_weight("eps", eps)
    for name, rate in rates.items():
        check_weight(f"rates[{name!r}]", rate)
    if not isinstance(betas, Sequence) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas!r}: give two numbers from 0 to below 1, such as (0.5, 0.999)")
    groups = {name: trained_parameters(*networks.values()) for name, networks in model.networks().items()}
    for name in rates.keys() | builders.keys():
        if name not in groups:
            raise ValueError(f"this {type(model).__name__} has no networks {name!r}: it has {', '.join(groups)}")

    optimizers: dict[str, Optimizer] = {}
    for name, parameters in groups.items():
        if parameters:
            build = builders.get(name) or AdamBuilder(rates.get(name, learning_rate), betas, eps)
            optimizers[name] = build(parameters)
    if not optimizers:
        raise ValueError(f"no network of this {type(model).__name__} has parameters that are trained")
    scaler, device = None, next(iter(groups[next(iter(optimizers))])).device.type
    if scaling:
        scaler = GradScaler(device)
    elif skip_nonfinite:
        scaler = GradScaler(device, init_scale=1.0, backoff_factor=nextafter(1.0, 0.0), growth_interval=2**31 - 1)
    return Optimizers(optimizers, scaler, average=average)
