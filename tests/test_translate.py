from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from ganparts.data import UnreadableImageError, sample
from ganparts.generators import ResNetGenerator
from ganparts.translate import translate, translate_to_zip


class Negative(nn.Module):
    """Turns a picture into its negative, and insists on its size."""

    size_multiple = 16

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] % 16 == images.shape[-2] % 16 == 0
        assert images.min() >= -1
        assert images.max() <= 1
        return -images


@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from(["RGB", "L", "RGBA", "CMYK"]))
def test_a_picture_of_any_size_and_mode_keeps_its_size(height: int, width: int, mode: str):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
    painted = translate(Negative(), image)
    assert (painted.mode, painted.size) == ("RGB", (width, height))
    assert np.array_equal(np.array(painted), 255 - np.array(image.convert("RGB")))


def test_a_picture_below_the_generators_least_is_padded():
    assert translate(ResNetGenerator(width=2, blocks=1).eval(), Image.new("RGB", (3, 5))).size == (3, 5)


def test_a_file_is_translated_by_a_real_generator():
    path = sample() / "testA" / "pontduGard_0.jpg"
    generator = ResNetGenerator(width=2, blocks=1).eval()
    painted = translate(generator, path)
    assert painted.size == (256, 256)
    assert np.array_equal(np.array(painted), np.array(translate(generator, Image.open(path))))
    with pytest.raises(UnreadableImageError, match=r"^cannot read the image absent\.jpg: No such file or directory$"):
        translate(generator, "absent.jpg")
    with pytest.raises(TypeError, match="takes a Pillow image or an image file, but was given a Tensor"):
        translate(generator, torch.zeros(3, 8, 8))  # pyright: ignore[reportArgumentType]


def test_an_archive_is_flat_square_rgb_jpegs_with_unique_names(tmp_path: Path):
    photos = [(name, torch.full((3, 20, 30), i * 20, dtype=torch.uint8)) for i, name in enumerate("abaca")]
    assert translate_to_zip(Negative(), iter(photos), tmp_path / "images.zip", size=32, batch_size=2) == 5
    with zipfile.ZipFile(tmp_path / "images.zip") as archive:
        assert archive.namelist() == ["a.jpg", "b.jpg", "a_2.jpg", "c.jpg", "a_3.jpg"]
        for i, name in enumerate(archive.namelist()):
            with Image.open(io.BytesIO(archive.read(name))) as image:
                assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 32))
                assert np.abs(np.array(image).astype(int) - (255 - i * 20)).max() <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]


def test_an_archive_that_breaks_off_leaves_the_old_one(tmp_path: Path):
    (tmp_path / "images.zip").write_bytes(b"old")

    def breaks():
        yield "a", torch.zeros(3, 16, 16, dtype=torch.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate_to_zip(Negative(), breaks(), tmp_path / "images.zip", size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]
    assert (tmp_path / "images.zip").read_bytes() == b"old"
