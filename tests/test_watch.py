"""Early warnings: each is given when its thing happens, once, and not on healthy runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from ganparts import Pair, build_cyclegan, make_optimizers, train_step
from ganparts.data import open_images, sample
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator
from ganparts.training import Finding, Watch, picture_statistics, sample_photos


@pytest.fixture
def photos() -> torch.Tensor:
    return sample_photos(open_images(sample() / "testA"), count=6, size=64)


class Painter(nn.Module):
    """Makes of photos what a function makes of them."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return self.function(photos)


def watched(tmp_path: Path) -> tuple[Watch, list[Finding]]:
    found: list[Finding] = []
    return Watch(tmp_path / "warnings.jsonl", say=found.append), found


BROKEN = {
    "constant picture": lambda photos: torch.full_like(photos, -1.0),
    "output equals input": lambda photos: photos + 0.001,
    "inverted colours": lambda photos: -photos,
    "collapse": lambda photos: photos[:1].expand_as(photos).roll(7, -1),
}
HEALTHY = {
    "tinted": lambda photos: (photos * 0.7 + 0.2 * torch.tensor([1.0, 0.5, -0.5])[:, None, None]).clamp(-1, 1),
    "blurred": lambda photos: nn.functional.avg_pool2d(photos, 5, 1, 2),
    "darker": lambda photos: photos * 0.5 - 0.4,
    "other hues": lambda photos: photos[:, [2, 0, 1]],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_pictures_are_warned_of_once_while_it_lasts(tmp_path: Path, photos: torch.Tensor, kind: str):
    watch, found = watched(tmp_path)
    good, bad = Painter(HEALTHY["tinted"]), Painter(BROKEN[kind])
    for step, painter in enumerate((bad, bad, good, bad, bad, bad, bad, bad, good, bad, bad, bad), 1):
        watch.pictures(100 * step, painter, photos)
    assert [(finding.kind, finding.step, finding.since) for finding in found] == [(kind, 600, 400), (kind, 1200, 1000)]
    assert found[0].what
    assert found[0].advice
    lines = [json.loads(line) for line in (tmp_path / "warnings.jsonl").read_text().splitlines()]
    assert lines == [vars(finding) for finding in found]


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_pictures_are_not_warned_of(tmp_path: Path, photos: torch.Tensor, kind: str):
    watch, found = watched(tmp_path)
    for step in range(1, 6):
        watch.pictures(step, Painter(HEALTHY[kind]), photos)
    assert not found
    assert not (tmp_path / "warnings.jsonl").exists()


def test_statistics_of_pictures(photos: torch.Tensor):
    same = picture_statistics(photos, photos)
    assert float(same["difference"]) == 0
    assert float(same["correlation"]) == pytest.approx(1)
    assert float(same["variety"]) == pytest.approx(1)
    negative = picture_statistics(photos, -photos)
    assert float(negative["correlation"]) == pytest.approx(-1)
    assert float(negative["brightness"]) == pytest.approx(-float(photos.mean()), abs=1e-6)
    for few in (photos[:1], photos[:1].expand(3, -1, -1, -1)):  # which cannot vary
        assert float(picture_statistics(few, few)["variety"]) == 1
    black = picture_statistics(photos, torch.full_like(photos, -1))
    assert [float(black[name]) for name in ("contrast", "brightness", "variety")] == [0, -1, 0]


def test_numbers_that_are_not_finite_are_warned_of(tmp_path: Path):
    watch, found = watched(tmp_path)
    assert watch.numbers(10, {"gan_ab": 0.5, "disc_a": 0.3})
    assert not watch.numbers(20, {"gan_ab": float("nan"), "disc_a": 0.3, "grad_norm_x": float("inf")})
    assert not watch.numbers(30, {"gan_ab": float("nan"), "disc_a": 0.3})
    assert watch.numbers(40, {"gan_ab": 0.5, "disc_a": 0.3})
    (finding,) = found
    assert (finding.kind, finding.step) == ("not finite", 20)
    assert finding.what == "gan_ab, grad_norm_x became nan, inf."


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "flags", "well", "said"),
    [
        ({"gan_ab": 0.5, "grad_norm_x": INF}, {}, False, "grad_norm_x became inf."),
        ({"gan_ab": 0.5, "grad_norm_x": INF}, {"scaled": True}, True, None),
        ({"gan_ab": NAN, "grad_norm_x": INF}, {"scaled": True}, False, "gan_ab became nan."),
        ({"gan_ab": 0.5, "grad_norm_x": INF}, {"skipping": True}, True, None),
        ({"gan_ab": NAN, "grad_norm_x": INF}, {"skipping": True}, True, "gan_ab became nan."),
        ({"gan_ab": NAN, "grad_norm_x": 1.0}, {"scaled": True, "skipping": True}, True, "gan_ab became nan."),
    ],
)
def test_a_scale_excuses_gradients_and_skipping_excuses_losses_too(tmp_path: Path, values, flags, well, said):
    watch, found = watched(tmp_path)
    assert watch.numbers(10, values, **flags) == well
    assert [finding.what for finding in found] == ([said] if said else [])


@pytest.mark.parametrize("flags", [{"scaled": True}, {"skipping": True}])
def test_steps_that_are_skipped_20_rows_in_a_row_teach_nothing(tmp_path: Path, flags: dict[str, bool]):
    watch, found = watched(tmp_path)
    good, bad = {"gan_ab": 0.5, "grad_norm_x": 1.0}, {"gan_ab": 0.5, "grad_norm_x": INF}
    for row in range(19):
        assert watch.numbers(row, bad, **flags)
    assert watch.numbers(19, good, **flags)
    answers = [watch.numbers(row, bad, **flags) for row in range(20, 41)]
    assert answers == [True] * 19 + [False] * 2
    (finding,) = found
    assert (finding.kind, finding.step) == ("nothing is learned", 39)
    assert finding.what == "20 logged steps in a row were skipped, since they were not finite."


def test_a_loss_scale_below_one_means_that_nothing_is_learned(tmp_path: Path):
    watch, found = watched(tmp_path)
    assert watch.numbers(10, {"gan_ab": 0.5, "grad_norm_x": INF, "loss_scale": 1.0}, scaled=True)
    assert not watch.numbers(20, {"gan_ab": 0.5, "grad_norm_x": INF, "loss_scale": 0.5}, scaled=True)
    assert [finding.kind for finding in found] == ["nothing is learned"]
    assert "2 logged steps in a row were skipped, since they were not finite (loss scale 0.5)." in found[0].what


@pytest.mark.parametrize("stop", range(1, 60, 7))
def test_a_resumed_watch_warns_as_an_uninterrupted_one(tmp_path: Path, stop: int):
    def look(watch: Watch, first: int, last: int) -> None:
        for row in range(first, last):
            disc = 0.5 if row == 0 else 0.001 if row < 40 else 0.3
            norm = 5000.0 if row == 51 else 1.0 + row % 3
            nan = NAN if 30 <= row < 33 else 0.5
            values = {"gan_ab": nan, "disc_a": disc, "grad_norm_x": norm if row % 25 else INF}
            watch.numbers(row, values, scaled=True)

    whole, expected = watched(tmp_path)
    look(whole, 0, 60)
    lines = (tmp_path / "warnings.jsonl").read_text()
    assert {finding.kind for finding in expected} == {
        *("not finite", "discriminator won (disc_a)", "gradient exploded (grad_norm_x)"),
    }
    (tmp_path / "warnings.jsonl").unlink()
    parted, before = watched(tmp_path)
    look(parted, 0, stop)
    saved = json.loads(json.dumps(parted.state_dict()))  # plain values, as a checkpoint wants them
    look(parted, stop, min(stop + 5, 60))  # after the checkpoint, before it is killed
    resumed, after = watched(tmp_path)
    resumed.load_state_dict(saved)
    resumed.forget_beyond(stop - 1)
    look(resumed, stop, 60)
    assert [finding for finding in before if finding.step < stop] + after == expected
    assert (tmp_path / "warnings.jsonl").read_text() == lines
    assert resumed.state_dict() == whole.state_dict()


def test_what_is_remembered_of_a_warning_does_not_grow(tmp_path: Path):
    watch, _ = watched(tmp_path)
    watch.numbers(0, {"disc_a": 1.0})
    sizes = set()
    for step in range(1, 200):
        watch.numbers(step, {"disc_a": 0.0001})
        sizes.add(len(watch.state_dict()["since"]["discriminator won (disc_a)"]))  # pyright: ignore[reportIndexIssue]
    assert len(sizes) == 1


def test_a_discriminator_that_won_is_warned_of_when_it_lasts(tmp_path: Path):
    watch, found = watched(tmp_path)
    watch.numbers(0, {"disc_a": 0.5, "disc_b": 0.5})
    for row in range(1, 40):
        watch.numbers(10 * row, {"disc_a": 0.001 if row != 19 else 0.2, "disc_b": 0.2})
    assert [(finding.kind, finding.step, finding.since) for finding in found] == [
        ("discriminator won (disc_a)", 390, 200)
    ]


def test_a_wasserstein_critic_below_zero_has_not_won(tmp_path: Path):
    watch, found = watched(tmp_path)
    for row in range(60):
        watch.numbers(10 * row, {"disc_a": 0.01 - 0.5 * row})
    assert found == []


def test_an_exploding_gradient_is_warned_of(tmp_path: Path):
    watch, found = watched(tmp_path)
    for step, norm in enumerate((1.0, 2.0, 1.5, 90.0, 1.0, 5000.0, 1.0, 50000.0, 1.0), 1):
        watch.numbers(step, {"grad_norm_generator_ab": norm})
    assert [(finding.kind, finding.step) for finding in found] == [("gradient exploded (grad_norm_generator_ab)", 8)]


def test_gradients_that_are_tiny_at_first_are_no_explosion(tmp_path: Path):
    watch, found = watched(tmp_path)
    for step, norm in enumerate((0.006, 0.4, 44.0, 30.0, 50.0, 40.0), 1):
        watch.numbers(step, {"grad_norm_generator_ab": norm})
    assert found == []


def test_a_run_that_goes_on_forgets_warnings_of_steps_that_it_does_again(tmp_path: Path):
    watch, _ = watched(tmp_path)
    for step in (10, 20, 30):
        watch.numbers(step, {"gan_ab": float("nan")})
        watch.numbers(step + 5, {"gan_ab": 0.5})
    with (tmp_path / "warnings.jsonl").open("a") as file:
        file.write('{"step": 5, "ki')  # killed while it wrote
    watched(tmp_path)[0].forget_beyond(20)
    lines = [json.loads(line)["step"] for line in (tmp_path / "warnings.jsonl").read_text().splitlines()]
    assert lines == [10, 20]


@pytest.mark.parametrize("guard", ["plain", "scaled", "scaled and fused"])
def test_gradient_norms_are_those_of_the_last_step_unscaled(guard: str):
    def norms(guard: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        discriminator = partial(PatchGAN, width=2, layers=1)
        model = build_cyclegan(
            generator=partial(ResNetGenerator, width=2, blocks=1), discriminator=discriminator
        ).double()
        optimizers = make_optimizers(model, scaling=guard != "plain")
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["fused"] = guard == "scaled and fused"
            optimizer._step_supports_amp_scaling = guard == "scaled and fused"  # as Adam(fused=True) sets it
        train_step(model, Pair(*torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)), optimizers)
        return optimizers.gradient_norms(model.networks())

    assert float(norms("plain")["grad_norm_generator_ab"]) > 0
    torch.testing.assert_close(norms(guard), norms("plain"), rtol=1e-7, atol=0)
