"""Both of a GAN's optimizers as one thing that a step talks to."""

from __future__ import annotations

from collections.abc import Iterable
from math import nextafter
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Adam, Optimizer

from ganparts.cyclegan.assembly import CycleGAN

__all__ = ["Optimizers", "make_optimizers"]

_FORMS = ("lr", "fused", "capturable", "foreach")  # how the arithmetic is done, and where the rate lies


class Optimizers:
    """The optimizers of the generators and of the discriminators.

    A step calls :meth:`zero_grad`, :meth:`backward` for each loss, and :meth:`step`. Gradients stay in ``.grad``
    until the next step, to be looked at.

    With a ``scaler`` losses are multiplied before they go backward, so that gradients do not vanish in fp16, and
    gradients are divided again in :meth:`step`. Where an optimizer's gradients are not finite, it changes no weight in
    that step, leaves its gradients multiplied, and the factor is lowered; the other optimizer steps all the same.

    Args:
        generators: for the parameters of both generators.
        discriminators: for the parameters of both discriminators.
        scaler: one for both (Micikevicius et al. 2017, arXiv 1710.03740), or None.
    """

    def __init__(self, generators: Optimizer, discriminators: Optimizer, scaler: GradScaler | None = None):
        self.generators = generators
        self.discriminators = discriminators
        self.scaler = scaler

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.generators.zero_grad()
        self.discriminators.zero_grad()

    def gradient(self, loss: Tensor, at: Tensor, *, retain_graph: bool = False) -> Tensor:
        """The gradient of ``loss`` at a leaf, an image, for :meth:`backward` to go on with."""
        self._scaled(loss).backward(inputs=[at], retain_graph=retain_graph)
        assert at.grad is not None
        return at.grad

    def backward(self, loss: Tensor, inputs: Iterable[Tensor], *, onward: tuple[Tensor, Tensor] | None = None) -> None:
        """Add the gradient of ``loss`` to ``inputs``, and to nothing else.

        Args:
            loss: a scalar.
            inputs: the parameters.
            onward: an image and what :meth:`gradient` gave for it: another loss's gradient, which goes on from there.
        """
        image, gradient = onward if onward is not None else (None, None)
        loss = self._scaled(loss)
        roots, seeds = ([loss], [None]) if image is None else ([loss, image], [None, gradient])
        torch.autograd.backward(roots, seeds, inputs=list(inputs))

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def step(self) -> None:
        """Update all networks."""
        for optimizer in (self.generators, self.discriminators):
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of both optimizers; where it lies on the device, in place."""
        for optimizer in (self.generators, self.discriminators):
            for group in optimizer.param_groups:
                _set_rate(group, learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """The state of both, and the scaler's."""
        states = {"generators": self.generators.state_dict(), "discriminators": self.discriminators.state_dict()}
        return states if self.scaler is None else states | {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave, on whatever device; the forms that suit this device stay.

        What exists already is filled in place, so that a captured graph goes on with what was loaded.
        """
        for name, optimizer in (("generators", self.generators), ("discriminators", self.discriminators)):
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


def _lay_out(optimizer: Optimizer) -> None:
    """Give states the memory layout of their parameters, which fused forms demand."""
    for parameter, tensors in optimizer.state.items():
        for name, tensor in tensors.items():
            if tensor.shape == parameter.shape and tensor.stride() != parameter.stride():
                tensors[name] = torch.empty_like(parameter, requires_grad=False).copy_(tensor)


def _fill_in_place(optimizer: Optimizer, before: dict[Tensor, dict[str, Tensor]]) -> None:
    """Give an optimizer its former tensors back, with the values that it has now; zeros where it has none."""
    for parameter, tensors in before.items():
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
    model: CycleGAN,
    *,
    learning_rate: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    eps: float = 1e-8,
    scaling: bool = False,
    skip_nonfinite: bool = False,
) -> Optimizers:
    """One Adam for both generators and one for both discriminators (Kingma and Ba 2014, arXiv 1412.6980).

    Move the model to its device first: parameters on CUDA get Adam's fused, capturable form.

    Args:
        model: whose networks are trained.
        learning_rate: of both.
        betas: of both; the paper's CycleGAN has 0.5 and 0.999.
        eps: of both; Keras has 1e-7.
        scaling: scale losses, as fp16 needs.
        skip_nonfinite: leave a step out whose gradients are not finite; so does ``scaling``.

    Raises:
        TypeError: ``model`` is no :class:`CycleGAN`.
    """
    if not isinstance(model, CycleGAN):
        raise TypeError(f"make_optimizers takes a CycleGAN, but was given a {type(model).__name__}")

    def adam(*networks: nn.Module) -> Adam:
        trained = [p for network in networks for p in network.parameters() if p.requires_grad]
        on_cuda = all(p.is_cuda for p in trained)
        # a rate on the device can be changed under a captured graph
        rate = torch.tensor(learning_rate, device=trained[0].device) if on_cuda and trained else learning_rate
        return Adam(trained, lr=rate, betas=betas, eps=eps, fused=on_cuda or None, capturable=on_cuda)

    scaler, device = None, next(model.parameters()).device.type
    if scaling:
        scaler = GradScaler(device)
    elif skip_nonfinite:
        scaler = GradScaler(device, init_scale=1.0, backoff_factor=nextafter(1.0, 0.0), growth_interval=2**31 - 1)
    return Optimizers(
        adam(model.generator_ab, model.generator_ba), adam(model.discriminator_a, model.discriminator_b), scaler
    )
