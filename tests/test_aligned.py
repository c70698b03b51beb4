"""Aligned pairs: two images of one scene, cut at the same place."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganparts.data import AlignedImages, AlignedPairs, DataError, UnreadableImageError, load_pairs, open_aligned


def scene(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_pairs(root: Path, count: int, **size: int) -> Path:
    """Of each scene the picture and its negative, in both layouts."""
    for folder in ("by_name/trainA", "by_name/trainB", "beside/train", "beside/val"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        picture = scene(number, **size)
        Image.fromarray(picture).save(root / "by_name" / "trainA" / f"{number}.png")
        Image.fromarray(255 - picture).save(root / "by_name" / "trainB" / f"{number}.bmp")
        beside = Image.fromarray(np.concatenate([picture, 255 - picture], axis=1))
        beside.save(root / "beside" / "train" / f"{number}.png")
        beside.save(root / "beside" / "val" / f"{number}.png")
    return root


@pytest.mark.parametrize("layout", ["by_name", "beside"])
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_both_layouts_give_source_and_target(tmp_path: Path, layout: str, direction):
    domains = open_aligned(write_pairs(tmp_path, 3) / layout, direction=direction)
    assert len(domains.train) == 3
    assert (domains.val is None, domains.test) == (layout == "by_name", None)
    for number, (source, target) in enumerate(domains.train):
        first = torch.from_numpy(scene(number)).permute(2, 0, 1)
        assert torch.equal(source, first if direction == "ab" else 255 - first)
        assert torch.equal(target, 255 - source)
    assert [name for name, _ in domains.train.readable(2)] == ["0", "1"]
    assert torch.equal(domains.train[-1][0], domains.train[2][0])
    assert torch.equal(domains.train[1:][0][1], domains.train[1][1])
    with pytest.raises(IndexError, match="there is no pair 3: there are only 3"):
        domains.train[3]


def test_folders_by_hand(tmp_path: Path):
    write_pairs(tmp_path, 2)
    a, b = (tmp_path / "by_name" / f"train{name}" for name in "AB")
    assert torch.equal(open_aligned(a=a, b=b).train[1][0], open_aligned(a=tmp_path / "beside" / "train").train[1][0])
    for wrong in ({}, {"b": b}, {"root": tmp_path, "a": a}, {"root": tmp_path, "b": b}):
        with pytest.raises(DataError, match="give "):
            open_aligned(**wrong)


@pytest.mark.parametrize("options", [{"resize": 24}, {"resize": 24, "squash": True}, {"resize": None, "crop": 26}])
def test_crop_and_flip_are_the_same_for_both(tmp_path: Path, options):
    train = open_aligned(write_pairs(tmp_path, 3) / "beside").train
    dataset = AlignedPairs(train, **{"crop": 16, **options})
    crop = dataset.framing.crop
    seen = set()
    for position in range(60):
        source, target = dataset[position]
        assert source.shape == (3, crop, crop)
        # resizing rounds, and clips what bicubic weights overshoot
        assert (source.int() - (255 - target.int())).abs().max() <= 1
        seen.add(source.numpy().tobytes())
    assert len(seen) > 40
    assert len(dataset) == 3


def test_an_epoch_shows_each_pair_once_and_a_pair_depends_on_seed_and_position(tmp_path: Path):
    train = open_aligned(write_pairs(tmp_path, 5) / "by_name").train

    def made(seed: int = 0) -> AlignedPairs:
        return AlignedPairs(train, seed=seed, resize=None, crop=20, flip=False)

    left = [[next(i for i in range(5) if inside(made()[5 * e + p][0], train[i][0])) for p in range(5)] for e in (0, 1)]
    assert [sorted(epoch) for epoch in left] == [list(range(5))] * 2
    assert left[0] != left[1]
    batches = list(load_pairs(made(), batch_size=2, steps=5))
    again = list(load_pairs(made(), batch_size=2, start=2, steps=5, workers=2))
    assert all(x.a.equal(y.a) and x.b.equal(y.b) for x, y in zip(batches[2:], again, strict=True))
    assert not batches[0].a.equal(next(load_pairs(made(seed=1), batch_size=2, steps=1)).a)


def inside(window: torch.Tensor, image: torch.Tensor) -> bool:
    return any(torch.equal(window, image[:, :, x : x + 20]) for x in range(image.shape[-1] - 19))


@pytest.mark.parametrize("layout", ["by_name", "beside"])
def test_pairs_held_on_the_device_are_the_same(tmp_path: Path, layout: str):
    dataset = AlignedPairs(open_aligned(write_pairs(tmp_path, 3) / layout).train, resize=24, crop=16)
    held = dataset.on_device("cpu")
    assert (held.is_held, dataset.is_held) == (True, False)
    assert held.nbytes == dataset.nbytes == 3 * 2 * 3 * 24 * 36
    for position in range(8):
        assert all(torch.equal(x, y) for x, y in zip(held[position], dataset[position], strict=True))


def test_a_target_of_another_size_is_resized_to_its_source(tmp_path: Path):
    write_pairs(tmp_path, 2)
    target = tmp_path / "by_name" / "trainB" / "1.bmp"
    Image.fromarray(scene(1, 10, 15)).save(target)
    train = open_aligned(tmp_path / "by_name").train
    assert [image.shape for image in train[1]] == [(3, 20, 30)] * 2
    Image.fromarray(scene(1, 15, 15)).save(target)
    with pytest.raises(UnreadableImageError, match=r"1\.png has 30 x 20 pixels and .* has 15 x 15: .*same aspect"):
        train[1]


def test_images_without_a_partner_are_named_or_left_out(tmp_path: Path):
    folder = write_pairs(tmp_path, 3) / "by_name"
    (folder / "trainA" / "0.png").rename(folder / "trainA" / "left.png")
    with pytest.raises(
        DataError, match=r"partner of the same name: 1 in .*trainA \(left\); 1 in .*trainB \(0\).*--skip-unreadable"
    ):
        open_aligned(folder)
    with pytest.warns(UserWarning, match=r"left out: .*1 in .*trainA \(left\); .*; 2 pairs remain"):
        train = open_aligned(folder, skip_unreadable=True).train
    assert torch.equal(train[0][1], 255 - train[0][0])
    shutil.copy(folder / "trainA" / "1.png", folder / "trainA" / "1.jpg")
    with pytest.raises(DataError, match="trainA has several images named 1"):
        open_aligned(folder, skip_unreadable=True)
    (folder / "trainA" / "1.jpg").unlink()
    for number in (1, 2):
        (folder / "trainA" / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"no image of .*trainA is called as one of .*trainB: .*\(0, 1, 2\)"):
        open_aligned(folder, skip_unreadable=True)


def test_unreadable_pairs_are_skipped_whole(tmp_path: Path):
    folder = write_pairs(tmp_path, 2) / "by_name"
    (folder / "trainB" / "0.bmp").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"0\.bmp: .*--skip-unreadable"):
        list(load_pairs(AlignedPairs(open_aligned(folder).train, resize=8, crop=8), steps=2, workers=1))
    train = open_aligned(folder, skip_unreadable=True).train
    with pytest.warns(UserWarning, match=r"skipped: .*0\.bmp"):
        assert torch.equal(train[0][0], train[1][0])
    with pytest.warns(UserWarning, match=r"skipped: .*0\.bmp"):
        assert [name for name, _ in train.readable()] == ["1"]
    (folder / "trainA" / "1.png").write_bytes(b"broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImageError, match="none of 2 pairs can be read"):
            train[0]


def test_a_pair_that_is_too_narrow_to_resize_is_named(tmp_path: Path):
    root = write_pairs(tmp_path, 2, height=3000, width=1)
    pairs = AlignedPairs(open_aligned(root / "by_name").train, resize=256, crop=256)
    assert pairs.nbytes == 0  # not known, and no error yet
    with pytest.raises(DataError, match=r"cannot use the image .*trainA/\d\.png: an image of 1 x 3000 pixels"):
        pairs[0]


def test_the_pair_that_is_taken_for_a_skipped_one_is_named(tmp_path: Path):
    folder = write_pairs(tmp_path, 2, height=3000, width=1) / "by_name"
    (folder / "trainA" / "0.png").write_bytes(b"broken")
    pairs = AlignedPairs(open_aligned(folder, skip_unreadable=True).train, resize=256, crop=256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (lambda: pairs[0], lambda: pairs[1], lambda: pairs.on_device("cpu")):
            with pytest.raises(DataError, match=r"cannot use the image .*trainA/1\.png: an image of 1 x 3000 pixels"):
                read()


def test_what_is_not_there_is_said_with_what_was_found(tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match=r"no layout of aligned pairs.*trainA and trainB.*found pictures/"):
        open_aligned(tmp_path)
    with pytest.raises(ValueError, match="direction='up': it is 'ab' or 'ba'"):
        AlignedImages([], direction="up")  # pyright: ignore[reportArgumentType]
    Image.new("RGB", (1, 5)).save(tmp_path / "pictures" / "line.png")
    with pytest.raises(UnreadableImageError, match=r"line\.png is one pixel wide"):
        open_aligned(a=tmp_path / "pictures").train[0]


def test_the_digest_is_of_both_images(tmp_path: Path):
    folder = write_pairs(tmp_path, 2) / "by_name"
    first = open_aligned(folder).digest()
    folder = folder.rename(tmp_path / "moved")
    assert open_aligned(folder).digest() == first
    target = folder / "trainB" / "1.bmp"
    target.write_bytes(target.read_bytes() + b"x")
    assert open_aligned(folder).digest() != first
    assert open_aligned(tmp_path / "beside").digest() != first
