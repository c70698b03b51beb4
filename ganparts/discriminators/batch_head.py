"""UVCGAN2's discriminator (Torbunov et al. 2023, arXiv 2303.16280), whose head compares images with earlier ones.

The body is a PatchGAN without its last convolution, with instance norm and spectral norm. The head looks at a batch as
a whole, by batch norm or by the standard deviation over the batch, after Karras et al. 2018 (arXiv 1710.10196). With a
batch of 1 there is nothing to compare, so queues hold what the body made of the last real and the last generated
images. The state-dict keys of the two networks are the source's.

Deviations from the source: the queues belong to the discriminator and to its ``state_dict``, and images come in
[-1, 1]. A gradient penalty of images in [0, 1] is 4 times the one of the same images in [-1, 1], if it is centred at 0.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ganparts.blocks import check_counts, check_images, one_of
from ganparts.blocks.saved import adopt_saved
from ganparts.discriminators.spectral_patchgan import spectral_body
from ganparts.precision import at_least_fp32
from ganparts.pretrained import PretrainedModule
from ganparts.registry import DISCRIMINATORS

__all__ = ["BatchHeadDiscriminator", "FeatureQueue", "batch_head"]


class FeatureQueue(nn.Module):
    """The last features [C, H, W] pushed, in the storage order of a ring; without gradient.

    It is allocated at its first use. While it fills up, a mask tells which places count, so shapes never change and
    nothing is asked of the device: a step that uses it can be captured in a CUDA graph.

    Args:
        size: features to keep, at least 1.
    """

    entries: Tensor | None
    pushed: Tensor

    def __init__(self, size: int = 3):
        super().__init__()
        if size < 1:
            raise ValueError(f"queue_size={size}: a queue holds the features of at least 1 image")
        self.size = size
        self.register_buffer("entries", None)
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """Which places hold features: bool [size]."""
        return torch.arange(self.size, device=self.pushed.device) < self.pushed

    @torch.no_grad()
    def push(self, features: Tensor) -> None:
        """Put the features of a batch [B, C, H, W], or the last ones that fit, in place of the oldest.

        Features that are not finite are not stored: what was there stays, zeros at first.

        Raises:
            ValueError: they have another shape than those stored.
        """
        entries = self._allocated(features)
        features = features[-self.size :].to(entries.dtype)
        steps = torch.arange(len(features), device=entries.device)
        places = (self.pushed + steps) % self.size
        sound = features.isfinite().flatten(1).all(1)[:, None, None, None]
        entries.index_copy_(0, places, torch.where(sound, features, entries.index_select(0, places)))
        self.pushed.add_(len(features))

    def matching(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Entries [size, C, H, W] and which places are filled [size], for features of that shape.

        Raises:
            ValueError: the features have another shape than those stored.
        """
        return self._allocated(features), self.filled

    def _allocated(self, features: Tensor) -> Tensor:
        if self.entries is None:
            self.entries = features.new_zeros((self.size, *features.shape[1:]), dtype=at_least_fp32(features).dtype)
            self.pushed = self.pushed.to(features.device)
        if self.entries.shape[1:] != features.shape[1:]:
            raise ValueError(
                f"the queue holds features of shape {list(self.entries.shape[1:])}, but these images give "
                f"{list(features.shape[1:])}: judge images of one size, or pass queue=None"
            )
        return self.entries

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        state_dict.setdefault(prefix + "pushed", torch.zeros_like(self.pushed))  # the source's files have no queues
        adopt_saved(self, "entries", state_dict, prefix, device=self.pushed.device)
        if self.entries is not None:
            self.size = len(self.entries)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _joined(features: Tensor, queued: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Features and queue [B + size, C, H, W], and for each of them 1 if it counts, else 0 [B + size, 1, 1, 1]."""
    wide = at_least_fp32(features)
    counts = torch.ones_like(wide[:, :1, :1, :1])
    if queued is None:
        return wide, counts
    entries, filled = queued
    return torch.cat([wide, entries]), torch.cat([counts, filled.to(counts.dtype)[:, None, None, None]])


class _BatchNormHead(nn.Module):
    """Batch norm over features and queue, then two convolutions: [B, C, H, W] to [B, objectives, H, W]."""

    def __init__(self, channels: int, objectives: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.net = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(channels, objectives, 3, padding=1),
        )

    def forward(self, features: Tensor, queued: tuple[Tensor, Tensor] | None) -> Tensor:
        if queued is None or not self.training:
            return self.net(self.norm(features))
        norm, (joint, counts) = self.norm, _joined(features, queued)
        places = counts.sum() * features.shape[2] * features.shape[3]
        mean = (joint * counts).sum((0, 2, 3), keepdim=True) / places
        variance = ((joint - mean).square() * counts).sum((0, 2, 3), keepdim=True) / places
        _follow(norm, mean.detach().flatten(), (variance.detach() * places / (places - 1)).flatten())
        normalised = (features - mean) * (variance + norm.eps).rsqrt()
        return self.net((normalised * norm.weight[:, None, None] + norm.bias[:, None, None]).to(features.dtype))


def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    for running, new in ((norm.running_mean, mean), (norm.running_var, variance)):
        if running is not None and norm.momentum is not None:
            running.lerp_(new.to(running.dtype), norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)


class _DeviationHead(nn.Module):
    """Appends the mean standard deviation over features and queue as a channel, then two convolutions."""

    def __init__(self, channels: int, objectives: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Identity(),  # in the source the deviation's place
            nn.Conv2d(channels + 1, channels, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.Conv2d(channels, objectives, 3, padding=1),
        )

    def forward(self, features: Tensor, queued: tuple[Tensor, Tensor] | None) -> Tensor:
        joint, counts = _joined(features, queued)
        mean = (joint * counts).sum(0) / counts.sum()
        variance = ((joint - mean).square() * counts).sum(0) / counts.sum()
        deviation = (variance + 1e-6).sqrt().mean().to(features.dtype)
        return self.net(torch.cat([features, deviation.expand(len(features), 1, *features.shape[2:])], 1))


class BatchHeadDiscriminator(PretrainedModule):
    """Judges patches, in comparison with other images: [B, in_channels, H, W] in [-1, 1] to [B, objectives, H', W'].

    ``discriminator(images)`` compares the images of the batch alone, and leaves the queues as they are. That is what a
    penalty calls. Training says which queue to compare with, and whether the images join it::

        real_logits = discriminator(real, queue="real", push=True)   # the discriminator's step
        fake_logits = discriminator(fake, queue="fake", push=True)
        logits = discriminator(fake, queue="fake")                   # the generator's step

    The images join the queue after they are judged. For a gradient penalty between real and generated images,
    ``queue="mixed"`` mixes the two queues place by place, as ``alpha`` mixes the images. The attribute ``has_queues``
    tells a training step that these options exist.

    In training a queue changes the batch statistics. In ``eval()`` mode batch norm uses its running statistics; the
    standard deviation always is that of the images given, and of the queue if one is named.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; doubled with each further one up to 8 times as many.
        layers: convolutions of stride 2, 1 to 16; H and W must be at least 3 * 2**layers.
        objectives: channels of the logits.
        head: ``"batch_norm"``, or ``"batch_stdev"`` for the standard deviation.
        queue_size: images to remember of each kind, real and generated.

    Raises:
        ValueError: ``objectives`` or channels below 1; an unknown head, ``queue_size`` below 1; in ``forward``
            images that are too small or of another size than those in the queue, or a combination of options that means
            nothing.
    """

    images_are_independent = False
    has_queues = True

    def __init__(
        self,
        in_channels: int = 3,
        *,
        width: int = 64,
        layers: int = 3,
        objectives: int = 1,
        head: Literal["batch_norm", "batch_stdev"] = "batch_stdev",
        queue_size: int = 3,
    ):
        super().__init__()
        check_counts(in_channels=in_channels, width=width, objectives=objectives)
        one_of("head", head, ("batch_norm", "batch_stdev"))
        self.in_channels = in_channels
        self.min_size = 3 * 2**layers
        channels = width * min(2**layers, 8)
        self._body = nn.Sequential(OrderedDict(model=spectral_body(in_channels, width, layers)))
        self._head = (_BatchNormHead if head == "batch_norm" else _DeviationHead)(channels, objectives)
        self.queue_real = FeatureQueue(queue_size)
        self.queue_fake = FeatureQueue(queue_size)

    def forward(
        self,
        images: Tensor,
        *,
        queue: Literal["real", "fake", "mixed"] | None = None,
        push: bool = False,
        alpha: Tensor | None = None,
    ) -> Tensor:
        """Judge images.

        Args:
            images: float [B, in_channels, H, W] in [-1, 1].
            queue: which earlier images to compare with; None for none.
            push: whether the images join that queue afterwards.
            alpha: for ``queue="mixed"``, a scalar or [1]: the mixed queue is alpha * real + (1 - alpha) * fake.
        """
        check_images(images, self)
        _check_options(queue, push, alpha)
        features = self._body(0.5 * images + 0.5)
        logits = self._head(features, self._queued(features, queue, alpha))
        if push:
            (self.queue_real if queue == "real" else self.queue_fake).push(features)
        return logits

    def _queued(self, features: Tensor, queue: str | None, alpha: Tensor | None) -> tuple[Tensor, Tensor] | None:
        if alpha is not None:
            real, fake = self.queue_real.matching(features), self.queue_fake.matching(features)
            return fake[0] + alpha.detach().reshape(()) * (real[0] - fake[0]), real[1] & fake[1]
        if queue is None:
            return None
        return (self.queue_real if queue == "real" else self.queue_fake).matching(features)


def _check_options(queue: str | None, push: bool, alpha: Tensor | None) -> None:
    if queue not in (None, "real", "fake", "mixed"):
        raise ValueError(f"queue={queue!r} is not known: use 'real', 'fake', 'mixed' or None")
    if push and queue not in ("real", "fake"):
        raise ValueError(f"push=True with queue={queue!r}: images join a queue only if it is 'real' or 'fake'")
    if (queue == "mixed") != (alpha is not None):
        raise ValueError(f"queue={queue!r} with alpha={alpha}: 'mixed' needs alpha, and nothing else takes it")


@DISCRIMINATORS.register("batch_head")
def batch_head(
    *,
    width: int = 64,
    in_channels: int = 3,
    layers: int = 3,
    objectives: int = 1,
    head: Literal["batch_norm", "batch_stdev"] = "batch_stdev",
    queue_size: int = 3,
) -> BatchHeadDiscriminator:
    """UVCGAN2's discriminator: 5,125,569 parameters; with the ``batch_norm`` head 5,121,985.

    It compares the images of a batch, so it notices a generator that always paints alike. Made for the penalty
    ``zero_centered``.
    """
    return BatchHeadDiscriminator(
        in_channels, width=width, layers=layers, objectives=objectives, head=head, queue_size=queue_size
    )
