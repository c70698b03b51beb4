"""How fast a step can be at most on a card."""

from __future__ import annotations

import sys
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn

from ganparts import LossWeights, Pair, build_cyclegan, cli, make_optimizers
from ganparts.adversarial import Optimizers
from ganparts.cli.doctor import DoctorOptions
from ganparts.interchange.bounds import CARDS, Work, bounds, count_step


def work(generator: str, *, identity: float, side: int = 256, batch: int = 1) -> Work:
    with torch.device("meta"):
        model = build_cyclegan(generator=generator, weights=LossWeights(identity=identity))
        pair = Pair(*torch.empty(2, batch, 3, side, side))
    return count_step(lambda optimizers: model.train_step(pair, optimizers), make_optimizers(model))


@pytest.mark.parametrize(
    ("generator", "identity", "tflop", "milliseconds"),
    [  # published or computed by hand for P100, T4, H100 in TF32 and in bf16
        ("resnet9", 5.0, 1.88, (203, 29, 3.8, 1.9)),
        ("resnet9", 0.0, 1.29, (139, 20, 2.6, 1.3)),
        ("unet256", 5.0, 0.318, (34, 4.9, 0.6, 0.3)),
    ],
)
def test_a_step_of_the_paper(generator: str, identity: float, tflop: float, milliseconds: tuple[float, ...]):
    counted = work(generator, identity=identity)
    assert counted.flop / 1e12 == pytest.approx(tflop, rel=0.005)
    cards = (("P100", "fp32"), ("T4", "fp16"), ("H100", "tf32"), ("H100", "bf16"))
    for (card, precision), expected in zip(cards, milliseconds, strict=True):
        found = bounds(counted, CARDS[card], precision)
        assert found.direct.milliseconds == pytest.approx(expected, rel=0.01, abs=0.05)
        assert found.milliseconds >= found.fused.milliseconds
    found = bounds(counted, CARDS["P100"], "fp32")
    assert found.milliseconds == found.direct.milliseconds  # there a step is bound by convolutions
    if generator == "resnet9" and identity:
        assert found.winograd is not None
        assert found.unfused is not None
        assert found.winograd.milliseconds == pytest.approx(104, rel=0.03)
        assert 0.75 * 33 < found.unfused.milliseconds < 33  # about 24 GB, with norms that read their input twice
        assert found.fused.milliseconds < 0.4 * found.unfused.milliseconds


class Assembly:
    """A step of one convolution, whose work can be written down."""

    def __init__(self, layer: nn.Module):
        self.layer = layer
        self.optimizers = Optimizers({"all": torch.optim.SGD(layer.parameters(), lr=0.1)})

    def step(self, optimizers: Optimizers) -> None:
        optimizers.zero_grad()
        optimizers.backward(self.layer(torch.empty(2, 4, 8, 6, device="meta")).sum(), list(self.layer.parameters()))


@pytest.mark.parametrize(
    ("layer", "outputs", "saved"),
    [
        (nn.Conv2d(4, 5, 3, padding=1, bias=False, device="meta"), 2 * 5 * 8 * 6, 1 - 16 / 36),
        (nn.Conv2d(4, 5, (1, 4), padding=(0, 2), bias=False, device="meta"), 2 * 5 * 8 * 7, 1 - 10 / 16),
        (nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False, device="meta"), 2 * 5 * 4 * 3, 0),
        (nn.Conv2d(4, 5, 1, bias=False, device="meta"), 2 * 5 * 8 * 6, 0),
    ],
)
def test_a_convolution_is_counted(layer: nn.Conv2d, outputs: int, saved: float):
    assembly, weights = Assembly(layer), layer.weight.numel()
    counted = count_step(assembly.step, assembly.optimizers)
    assert counted.flop == 2 * (2 * outputs * weights // 5)  # its image needs no gradient
    assert counted.winograd_flop == pytest.approx(counted.flop * (1 - saved))
    images = 2 * 4 * 8 * 6
    assert counted.convolution_bytes == 4 * ((images + weights + outputs) + (outputs + images + weights + weights))
    assert counted.optimizer_bytes == 28 * weights
    assert counted.all_bytes > counted.convolution_bytes


def test_half_precision_halves_feature_maps_but_not_the_optimizer():
    counted = Work(
        flop=10**12, winograd_flop=5e11, convolution_bytes=8 * 10**9, optimizer_bytes=10**9, all_bytes=10**11
    )
    full, half = (bounds(counted, CARDS["H100"], precision) for precision in ("fp32", "bf16"))
    assert full.fused.milliseconds == pytest.approx(9e9 / 3350e9 * 1e3)
    assert half.fused.milliseconds == pytest.approx(5e9 / 3350e9 * 1e3)
    assert half.milliseconds == half.fused.milliseconds  # 1.5 ms, and 1.0 for the operations
    assert half.winograd is None
    assert half.unfused is None
    with pytest.raises(ValueError, match="a Tesla T4 has no bf16: choose one of fp32, fp16"):
        bounds(counted, CARDS["T4"], "bf16")


def test_a_step_that_cannot_be_counted_is_named():
    class Reading(Assembly):
        def step(self, optimizers: Optimizers) -> None:
            self.layer(torch.empty(1, 4, 8, 6, device="meta")).sum().item()

    assembly = Reading(nn.Conv2d(4, 5, 1, device="meta"))
    with pytest.raises(ValueError, match=r"the operations of this step cannot be counted \(.*meta"):
        count_step(assembly.step, assembly.optimizers)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    return caught.value.code, captured.out + captured.err


def test_the_doctor_tells_the_bound_of_a_card(monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "doctor", "--card", "P100", "--preset", "paper")
    assert code == 0, said
    assert "preset paper on a Tesla P100 PCIe 16 GB in fp32, batch 1, 256 px" in said
    assert "These are bounds, not forecasts. With direct convolutions none beats 202.1 ms, 4.95 pairs a second" in said
    assert "9.3 TFLOP/s, 732 GB/s (NVIDIA Tesla P100 PCIe data sheet)" in said
    rows = [line.split()[:2] for line in said.splitlines() if " ms " in line and line[:1] in " 123456789"]
    assert [float(row[0]) for row in rows] == pytest.approx([202.1, 101.7, 7.9, 26], rel=0.02)
    small = ("--preset", "paper", "--crop", "64", "--width", "4", "--generator", "resnet6", "--batch-size", "3")
    small += ("--precision", "tf32")
    code, said = run(monkeypatch, capsys, "doctor", "--card", "A100", *small)
    assert code == 0, said
    assert "in tf32, batch 3, 64 px" in said
    assert run(monkeypatch, capsys, "doctor", "--card", "T4", "--precision", "bf16")[1].startswith(
        "error: --precision bf16 is not possible on a card of capability 7.5"
    )


def test_every_card_can_be_asked_for():
    choices = [card for part in get_args(get_type_hints(DoctorOptions)["card"]) for card in get_args(part)]
    assert choices == list(CARDS)
    for card in CARDS.values():
        assert {"fp32", "fp16"} <= set(card.tflops)
        assert ("bf16" in card.tflops) == (card.capability >= (8, 0))
