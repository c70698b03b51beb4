"""Adam, with weight decay or without, as a builder for :func:`ganparts.make_optimizers`.

Adam: Kingma and Ba 2014, arXiv 1412.6980. Decoupled decay (AdamW): Loshchilov and Hutter 2017, arXiv 1711.05101.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

__all__ = ["AdamBuilder"]


@dataclass(frozen=True)
class AdamBuilder:
    """Makes an Adam of parameters, in its fused form. On CUDA it is capturable: its rate can change under a graph.

    Args:
        learning_rate: before the schedule.
        betas: Adam's.
        eps: Adam's.
        weight_decay: with plain Adam, this times the parameter is added to the gradient.
        decoupled: AdamW: shrink the parameters by this times the learning rate instead.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.5, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def __call__(self, parameters: list[nn.Parameter]) -> Optimizer:
        on_cuda = all(parameter.is_cuda for parameter in parameters)
        rate = torch.tensor(self.learning_rate, device=parameters[0].device) if on_cuda else self.learning_rate
        optimizer = (AdamW if self.decoupled else Adam)(
            parameters,
            lr=rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=all(parameter.device.type in ("cuda", "cpu") for parameter in parameters) or None,
            capturable=on_cuda,
        )
        for group in optimizer.param_groups:
            group["initial_lr"] = self.learning_rate  # the tensor holds it rounded to fp32
        return optimizer
