"""What the layers of a generator compute: how the ResNets are :class:`~ganparts.protocols.FeatureGenerator`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["feature_channels", "run_with_features", "train_biases"]


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
    for layer in model:  # what is no convolution has as many channels after as before
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
