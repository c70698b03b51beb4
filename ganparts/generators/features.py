"""Generators that are one chain of layers, whose outputs can be had: :class:`~ganparts.protocols.FeatureGenerator`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ganparts.blocks import check_images, residual_output
from ganparts.pretrained import PretrainedModule

__all__ = ["ChainGenerator", "feature_channels", "run_with_features", "train_biases"]


class ChainGenerator(PretrainedModule):
    """What generators of one chain of layers do: images [B, in_channels, H, W] to [B, out_channels, H, W].

    A derived class fills in the attributes.

    Attributes:
        model: the layers.
        in_channels: channels of the input image.
        residual: whether the layers compute a change of the input (:func:`ganparts.blocks.residual_output`).
        size_multiple: H and W must be multiples of it.
        min_size: H and W must be at least this.
        nce_layers: the layers that a contrastive loss compares.
    """

    model: nn.Sequential
    in_channels: int
    residual: bool
    size_multiple: int
    min_size: int
    nce_layers: tuple[int, ...]

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self)
        output = self.model(images)
        return residual_output(images, output) if self.residual else output

    def features(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The outputs of these layers of ``model``, each [B, C, H', W'], computed no further than the last of them."""
        check_images(images, self)
        return run_with_features(self.model, images, layers, stop=True)[1]

    def forward_with_features(self, images: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """``forward`` and ``features`` in one pass."""
        check_images(images, self)
        output, features = run_with_features(self.model, images, layers)
        return residual_output(images, output) if self.residual else output, features

    def feature_channels(self, layers: Sequence[int]) -> list[int]:
        """The number of channels of each of these features."""
        return feature_channels(self.model, self.in_channels, layers)

    def prepare_features(self, layers: Sequence[int]) -> None:
        """Make the biases of these layers trainable; see :class:`~ganparts.protocols.FeatureGenerator`."""
        train_biases(self.model, layers)


def run_with_features(
    model: nn.Sequential, images: Tensor, layers: Sequence[int], *, stop: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Run a chain of layers once and keep the outputs of some.

    Args:
        model: the chain.
        images: its input.
        layers: numbers of the layers to keep, in any order.
        stop: leave out the layers that come after the last one kept.

    Returns:
        What the last layer that ran gives, and a feature for each of ``layers``, in that order. A layer that works in
        place changes a copy, not the feature.

    Raises:
        ValueError: no layers, or a number that no layer has.
    """
    check_layers(model, layers)
    values, kept = images, {}
    for number, layer in enumerate(model):
        if getattr(layer, "inplace", False) and any(values is feature for feature in kept.values()):
            values = values.clone()
        values = layer(values)
        if number in layers:
            kept[number] = values
        if stop and number == max(layers):
            break
    return values, [kept[number] for number in layers]


def feature_channels(model: nn.Sequential, in_channels: int, layers: Sequence[int]) -> list[int]:
    """The channels of each of the features that :func:`run_with_features` gives; nothing is computed.

    Raises:
        ValueError: no layers, or a number that no layer has.
    """
    check_layers(model, layers)
    channels, known = in_channels, []
    for layer in model:  # what is not a convolution has as many channels after as before
        channels = layer.out_channels if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else channels
        known.append(channels)
    return [known[number] for number in layers]


def train_biases(model: nn.Sequential, layers: Sequence[int]) -> None:
    """Let the biases of these layers be trained.

    :func:`~ganparts.blocks.normalized` freezes a bias that the instance norm after it cancels. A feature taken before
    that norm depends on the bias.

    Raises:
        ValueError: no layers, or a number that no layer has.
    """
    check_layers(model, layers)
    for number in layers:
        bias = getattr(model[number], "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.requires_grad_(True)


def check_layers(model: nn.Sequential, layers: Sequence[int]) -> None:
    """Refuse numbers that no layer has.

    Raises:
        ValueError: names the number and the range, or there are none.
    """
    if not layers:
        raise ValueError("layers=[]: name at least one layer whose feature is wanted")
    for number in layers:
        if not 0 <= number < len(model):
            raise ValueError(f"there is no layer {number}: this network has the layers 0 to {len(model) - 1}")
