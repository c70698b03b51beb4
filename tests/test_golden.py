"""The reference implementation's numbers, in float64; see golden/README.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor, nn

from ganparts import Pair, build_cyclegan, make_optimizers, train_step
from ganparts.interchange import from_junyanz

GOLDEN = Path(__file__).parent / "golden"
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


def read(name: str) -> dict[str, Tensor]:
    return {key: tensor.double() for key, tensor in load_file(GOLDEN / f"{name}.safetensors").items()}


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet9_ngf8_64", "ResNetGenerator"),
        ("unet128_ngf8_128", "UNetGenerator"),
        ("patchgan3_ndf8_64", "PatchGAN"),
    ],
)
def test_networks_give_the_reference_outputs(name: str, kind: str):
    golden = read(name)
    network = from_junyanz(part_of(golden, "weights."))
    assert type(network).__name__ == kind
    error = (network(golden["input"]) - golden["output"]).abs().max() / golden["output"].abs().max()
    assert error < 1e-9


def test_five_training_steps_give_the_reference_losses_and_weights():
    golden = read("train_lsgan_idt_5steps")

    def network(name: str) -> nn.Module:
        return from_junyanz(part_of(golden, f"{name}."))

    model = build_cyclegan(
        generator=(lambda: network("G_A"), lambda: network("G_B")),
        discriminator=(lambda: network("D_B"), lambda: network("D_A")),
    )
    optimizers = make_optimizers(model)
    for step, images in enumerate(zip(golden["real_A"], golden["real_B"], strict=True)):
        losses = train_step(model, Pair(*images), optimizers)
        for theirs, ours in LOSSES.items():
            expected = golden[f"loss.{theirs}"][step]
            assert abs(losses[ours] - expected) <= 1e-9 * abs(expected), (step, theirs)
    for theirs, ours in NETWORKS.items():
        network_ = getattr(model, ours)
        cancelled = {name for name, parameter in network_.named_parameters() if not parameter.requires_grad}
        for name, tensor in network_.state_dict().items():
            total, absolute = golden[f"final.{theirs}.{name}"]
            tolerance = (1e-6 if name in cancelled else 1e-9) * absolute
            assert abs(tensor.sum() - total) <= tolerance, (theirs, name)
            assert abs(tensor.abs().sum() - absolute) <= tolerance, (theirs, name)
