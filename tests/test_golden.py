"""The reference implementation's numbers, in float64; see golden/README.md."""

from __future__ import annotations

import re

import pytest
from golden_files import about, golden_names, part_of, read, relative_error
from torch import Tensor, nn

from ganparts import LossWeights, Pair, build_cyclegan, make_optimizers, train_step
from ganparts.interchange import from_junyanz

EXACT = 1e-9
KINDS = {"resnet": "ResNetGenerator", "unet": "UNetGenerator", "patchgan": "PatchGAN", "pixel": "PixelDiscriminator"}
FAMILIES = [(name, type_) for kind, type_ in KINDS.items() for name in golden_names(f"{kind}[0-9_]*")]
# theirs: ours. Their D_A judges domain B, their idt_A is G_A(real_B).
NETWORKS = {"G_A": "generator_ab", "G_B": "generator_ba", "D_A": "discriminator_b", "D_B": "discriminator_a"}
LOSSES = {
    "G_A": "gan_ab",
    "G_B": "gan_ba",
    "D_A": "disc_b",
    "D_B": "disc_a",
    "cycle_A": "cycle_a",
    "cycle_B": "cycle_b",
    "idt_A": "identity_b",
    "idt_B": "identity_a",
}


@pytest.mark.parametrize(("name", "kind"), FAMILIES)
def test_golden_networks_give_the_reference_outputs(name: str, kind: str):
    golden = read(name)
    network = from_junyanz(part_of(golden, "weights."))
    assert type(network).__name__ == kind
    assert relative_error(network(golden["input"]), golden["output"]) < EXACT


def numbers(pattern: str, text: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """The numbers that a pattern finds in a file's settings."""
    found = re.search(pattern.replace("N", r"([\d.]*\d(?:e-?\d+)?)"), text)
    return tuple(map(float, found.groups())) if found else default


@pytest.mark.parametrize("name", golden_names("train_*"))
def test_golden_training_steps_give_the_reference_losses_and_weights(name: str):
    golden, settings = read(name), str(about(name))

    def network(name: str) -> nn.Module:
        return from_junyanz(part_of(golden, f"{name}."))

    cycle_a, cycle_b = numbers("lambda N/N", settings, (10.0, 10.0))
    (share,) = numbers("identity N", settings, (0.5 if "loss.idt_A" in golden else 0.0,))
    rate, *betas = numbers(r"Adam N \(N, ?N\)", settings, (2e-4, 0.5, 0.999))
    model = build_cyclegan(
        generator=(lambda: network("G_A"), lambda: network("G_B")),
        discriminator=(lambda: network("D_B"), lambda: network("D_A")),
        adversarial="bce" if re.search("vanilla|bce", (name + settings).lower()) else "lsgan",
        replay="none",
        weights=LossWeights(cycle=(cycle_a, cycle_b), identity=(share * cycle_a, share * cycle_b)),
    )
    optimizers = make_optimizers(model, learning_rate=rate, betas=(betas[0], betas[1]))
    for step, images in enumerate(zip(golden["real_A"], golden["real_B"], strict=True)):
        losses = train_step(model, Pair(*images), optimizers)
        for theirs, ours in LOSSES.items():
            if f"loss.{theirs}" in golden:
                expected = golden[f"loss.{theirs}"][step]
                actual = losses.get(ours, expected.new_zeros(()))  # an identity loss without weight is not computed
                assert abs(actual - expected) <= EXACT * abs(expected), (step, theirs)
    for theirs, ours in NETWORKS.items():
        compare_with_sums(getattr(model, ours), part_of(golden, f"final.{theirs}."))


def compare_with_sums(network: nn.Module, finals: dict[str, Tensor]) -> None:
    """A network's tensors against the sum and the absolute sum of each."""
    cancelled = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    for name, tensor in network.state_dict().items():
        total, absolute = finals[name]
        tolerance = (1e-6 if name in cancelled else EXACT) * absolute
        assert abs(tensor.sum() - total) <= tolerance, name
        assert abs(tensor.abs().sum() - absolute) <= tolerance, name
