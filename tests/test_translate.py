from __future__ import annotations

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms
from torch import Tensor, nn

from ganparts.data import UnreadableImageError, sample, to_unit_range
from ganparts.data.colour import to_srgb
from ganparts.data.members import read_member
from ganparts.disk import replace_file
from ganparts.generators import ResNetGenerator
from ganparts.submission import SubmissionError, check_submission
from ganparts.translate import translate, translate_files, translate_to_zip
from ganparts.translate.sinks import ArchiveSink
from ganparts.translate.sources import images_in, open_archive


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


@pytest.mark.parametrize("tile", [0, 32])
def test_a_generator_that_does_not_keep_the_size_is_refused(tile: int):
    halving = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh())
    with pytest.raises(ValueError, match=r"the generator made 100x76 of 101x77 pixels.*: declare its size_multiple"):
        translate(halving, torch.zeros(3, 101, 77), tile=tile)
    halving.size_multiple = 2  # pyright: ignore[reportArgumentType]
    assert translate(halving, torch.zeros(3, 101, 77), tile=tile).shape == (3, 101, 77)


def test_a_file_is_translated_by_a_real_generator():
    path = sample() / "testA" / "pontduGard_0.jpg"
    generator = ResNetGenerator(width=2, blocks=1).eval()
    painted = translate(generator, path)
    assert painted.size == (256, 256)
    assert np.array_equal(np.array(painted), np.array(translate(generator, Image.open(path))))
    with pytest.raises(UnreadableImageError, match=r"^cannot read the image absent\.jpg: No such file or directory$"):
        translate(generator, "absent.jpg")


def test_a_pillow_image_is_turned_upright_as_its_file_is(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.arange(3 * 20 * 30, dtype=np.uint8).reshape(20, 30, 3)).save(tmp_path / "turned.png", exif=exif)
    from_file = translate(Negative(), tmp_path / "turned.png")
    assert from_file.size == (20, 30)
    assert np.array_equal(np.array(translate(Negative(), Image.open(tmp_path / "turned.png"))), np.array(from_file))
    damaged = Image.new("RGB", (20, 30))
    damaged.info["exif"] = b"Exif\0\0no TIFF at all"
    assert translate(Negative(), damaged).size == (20, 30)


@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1), (torch.bfloat16, 16)])
def test_networks_of_other_types_translate_too(dtype: torch.dtype, tolerance: int, tile: int):
    generator = ResNetGenerator(width=2, blocks=1).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8))
    expected = translate(generator, image, tile=tile, precision="fp32")
    painted = translate(generator.to(dtype), image, tile=tile)
    assert (painted.int() - expected.int()).abs().max() <= tolerance


def test_what_comes_back_is_what_was_given():
    generator = Negative()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).movedim(-1, 1)
    floats = to_unit_range(tensor)
    assert torch.equal(translate(generator, tensor), 255 - tensor)
    assert torch.equal(translate(generator, tensor[0]), 255 - tensor[0])
    assert torch.equal(translate(generator, floats), -floats)
    assert torch.equal(translate(generator, floats[0].double()), -floats[0].double())
    assert np.array_equal(translate(generator, pixels), 255 - pixels)
    assert np.array_equal(translate(generator, pixels[0, ::-1]), 255 - pixels[0, ::-1])
    assert np.array_equal(translate(generator, floats.numpy()), -floats.numpy())
    pictures = [Image.fromarray(pixels[0]), Image.fromarray(pixels[1, :, :9]), Image.fromarray(pixels[1])]
    painted = translate(generator, pictures)
    assert [np.array_equal(np.array(p), 255 - np.array(q)) for p, q in zip(painted, pictures, strict=True)] == [
        True
    ] * 3
    mixed = translate(generator, [pixels, tensor[0]])
    assert np.array_equal(mixed[0], 255 - pixels)
    assert torch.equal(mixed[1], 255 - tensor[0])
    assert translate(generator, []) == []


def test_tensors_that_come_back_can_be_used_like_others():
    for image in (torch.zeros(3, 16, 16), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)):
        painted = translate(Negative(), image)
        painted.add_(1)
        weight = torch.ones(1, requires_grad=True)
        (painted * weight).sum().backward()
        assert weight.grad is not None


def test_pictures_of_one_size_go_together_and_no_more_than_fit(monkeypatch: pytest.MonkeyPatch):
    batches = []

    class Counts(Negative):
        def forward(self, images: Tensor) -> Tensor:
            batches.append(list(images.shape))
            return super().forward(images)

    images = [torch.zeros(3, 16, width, dtype=torch.uint8) for width in (16, 32, 16, 32, 32)]
    translate(Counts(), images)
    assert batches == [[2, 3, 16, 16], [3, 3, 16, 32]]
    batches.clear()
    monkeypatch.setattr("ganparts.translate.image.pixels_at_once", lambda device: 2 * 16 * 32)
    translate(Counts(), images)
    assert batches == [[2, 3, 16, 16], [2, 3, 16, 32], [1, 3, 16, 32]]


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (7, TypeError, "takes a Pillow image, an image file, a tensor, a NumPy array or a list of these, .* a int$"),
        (torch.zeros(1, 8, 8), ValueError, r"a picture of shape \[1, 8, 8\]: give a tensor \[3, H, W\]"),
        (torch.zeros(3, 0, 8), ValueError, r"a picture of shape \[3, 0, 8\]"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), ValueError, r"a picture of torch.int32: give uint8, or floats"),
        (Image.new("RGB", (0, 8)), ValueError, "a picture of 0 x 8 pixels: there is nothing to translate"),
        (np.zeros((8, 8, 3), dtype=complex), ValueError, "complex128: give uint8"),
        (torch.full((3, 8, 8), 255.0), ValueError, r"floats from 255 to 255: floats are in \[-1, 1\]; .*to_unit_range"),
    ],
)
def test_what_is_no_picture_is_refused(image, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        translate(Negative(), image)


@pytest.mark.parametrize("wrong", [None, 3, {"monet": 1}])
def test_what_is_no_generator_is_refused(wrong, tmp_path: Path):
    for use in (
        lambda: translate(wrong, torch.zeros(3, 8, 8)),
        lambda: translate_files(wrong, sample() / "testA", tmp_path / "out"),
    ):
        with pytest.raises(TypeError, match=f"{type(wrong).__name__} is not a generator: give a network, or"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [{"tile": 8.5}, {"batch_size": 2.5}, {"size": "64"}, {"workers": 0}, {"workers": 1.5}]
)
def test_options_that_are_no_whole_numbers_are_refused(options, tmp_path: Path):
    with pytest.raises(ValueError, match=f"{next(iter(options))}={next(iter(options.values()))!r}"):
        translate_files(Negative(), [sample() / "testA"], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [None, b"photos", [None], 3])
def test_inputs_that_are_no_names_are_refused(wrong, tmp_path: Path):
    with pytest.raises(TypeError, match=f"inputs={re.escape(str(wrong))}: give a file, folder, pattern or archive"):
        translate_files(Negative(), wrong, tmp_path / "out")


@pytest.mark.parametrize("kind", [str, Path])
def test_one_input_needs_no_list(kind, tmp_path: Path):
    photo = sample() / "testA" / "pontduGard_0.jpg"
    assert translate_files(Negative(), kind(photo), tmp_path).written == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pontduGard_0.jpg"]


def test_a_colour_profile_is_converted_to_srgb():
    """One whose red is sRGB's green and the other way round; one that is damaged, or of another kind, is left alone."""
    srgb, lab = (ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes() for name in ("sRGB", "LAB"))
    swapped = srgb.replace(b"rXYZ", b"?XYZ", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"?XYZ", b"gXYZ", 1)
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "GRBs".encode("utf-16-be"))
    assert swapped != srgb
    for mode, alpha in (("RGB", 255), ("RGBA", 0)):
        image = Image.new("RGB", (16, 16), (60, 200, 30))
        image.putalpha(alpha) if mode == "RGBA" else None
        image.info["icc_profile"] = swapped
        seen = 255 - np.array(translate(Negative(), image)).astype(int)
        assert np.abs(seen - (np.array([200, 60, 30]) if alpha else 255)).max() <= 3
        for kept in (b"nothing", swapped[:200], lab, srgb):
            image.info["icc_profile"] = kept
            seen = 255 - np.array(translate(Negative(), image)).astype(int)
            assert np.array_equal(seen, np.broadcast_to([60, 200, 30] if alpha else 255, seen.shape))


def test_a_linear_profile_is_not_taken_for_srgb():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (16, 16), (60, 60, 60))
    for described in ("sRGB linear", "sRGB-x-g10"):  # named as GIMP and elle's profiles are; the curve stays sRGB's
        text = "sRGB built-in".encode("utf-16-be")
        assert text in srgb
        image.info["icc_profile"] = srgb.replace(
            text, described.encode("utf-16-be").ljust(len(text), b"\0")[: len(text)]
        )
        assert to_srgb(image) is not image
    image.info["icc_profile"] = srgb
    assert to_srgb(image) is image


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


def test_an_archive_holds_the_middles_of_photos_unless_they_are_to_be_squashed(tmp_path: Path):
    photo = torch.zeros(3, 30, 10, dtype=torch.uint8)
    photo[:, 10:20] = 255
    for squash, corner in ((False, 0), (True, 255)):
        translate_to_zip(Negative(), [("a", photo)], tmp_path / "images.zip", size=32, squash=squash)
        with zipfile.ZipFile(tmp_path / "images.zip") as archive, Image.open(archive.open("a.jpg")) as image:
            assert np.abs(np.array(image)[0, 0].astype(int) - corner).max() <= 3


def tar_of(path: Path, names: Iterable[str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            content = io.BytesIO()
            Image.new("RGB", (20, 20)).save(content, "PNG")
            member = tarfile.TarInfo(name)
            member.size = content.tell()
            content.seek(0)
            archive.addfile(member, content)
    return path


def damage_header(path: Path, number: int) -> None:
    with tarfile.open(path) as archive:
        place = archive.getmembers()[number].offset
    content = bytearray(path.read_bytes())
    content[place + 148] ^= 1  # of the checksum
    path.write_bytes(content)


def test_a_tar_archive_that_is_damaged_in_the_middle_is_not_half_an_archive(tmp_path: Path):
    given, out = (tar_of(tmp_path / name, ["a.png", "b.png", "c.png"]) for name in ("in.tar", "out.tar"))
    damage_header(given, 1)
    report = translate_files(Negative(), given, tmp_path / "folder")
    assert (report.written, report.failed) == (0, 1)
    assert "in.tar: an archive that cannot be read: there is no header of a member at byte" in report.problems[0]
    damage_header(out, 2)
    before = out.read_bytes()
    Image.new("RGB", (20, 20)).save(tmp_path / "d.png")
    with pytest.raises(ValueError, match=r"out\.tar is not a tar archive that can be read .*--overwrite it"):
        translate_files(Negative(), tmp_path / "d.png", out)
    assert out.read_bytes() == before


def test_links_in_tar_archives_are_photos_and_are_kept(tmp_path: Path):
    path = tar_of(tmp_path / "links.tar", ["a.png"])
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (("b.png", tarfile.LNKTYPE, "a.png"), ("c.png", tarfile.SYMTYPE, "gone.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    report = translate_files(Negative(), path, tmp_path / "folder", format="png")
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == ["a.png", "b.png"]
    assert [problem.partition(": ")[2] for problem in report.problems] == [
        "it is a link to 'gone.png', which is not in the archive"
    ]
    Image.new("RGB", (20, 20)).save(tmp_path / "d.png")
    translate_files(Negative(), tmp_path / "d.png", path, format="png")
    with tarfile.open(path) as archive:
        kept = [(member.name, member.type) for member in archive]
    regular, link, symbolic = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
    assert kept == [("a.png", regular), ("b.png", link), ("c.png", symbolic), ("d.png", regular)]


@pytest.mark.parametrize("damage", ["name", "version"])
def test_a_zip_archive_that_python_cannot_open_does_not_end_the_rest(tmp_path: Path, damage: str):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\u00e4\u00e4.png", b"")
    content = bytearray(path.read_bytes())
    central = content.rindex(b"PK\1\2")
    if damage == "name":
        content[central + 46] = 0xFF
    else:
        content[central + 6] = 99
    path.write_bytes(content)
    Image.new("RGB", (20, 20)).save(tmp_path / "d.png")
    report = translate_files(Negative(), [path, tmp_path / "d.png"], tmp_path / "folder")
    assert (report.written, report.failed) == (1, 1)
    assert "bad.zip: an archive that cannot be read: " in report.problems[0]
    with pytest.raises(SubmissionError, match=r"bad\.zip is not a zip archive that can be read"):
        check_submission(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_two_runs_that_write_one_archive_the_second_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"all.{kind}"
    (tmp_path / f"all.{kind}.partial").write_bytes(b"of a run that was killed" * 1000)
    first = ArchiveSink(path, overwrite=False)
    first.write("b.png", b"1")
    with pytest.raises(OSError, match=rf"^another run writes {path} now: wait for its end, or take another name"):
        ArchiveSink(path, overwrite=False)
    first.close(whole=True)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    second = ArchiveSink(path, overwrite=False)
    third = []
    replace = os.replace

    def replaced(*paths: Path) -> None:  # a third run begins at this very moment
        replace(*paths)
        if not third:
            third.append(ArchiveSink(path, overwrite=False))

    monkeypatch.setattr(os, "replace", replaced)
    second.close(whole=True)
    third[0].write("c.png", b"3")
    third[0].close(whole=True)
    with zipfile.ZipFile(path) if kind == "zip" else tarfile.open(path) as archive:
        names = archive.namelist() if isinstance(archive, zipfile.ZipFile) else archive.getnames()
    assert names == ["b.png", "c.png"]


def test_a_link_stays_a_link_and_a_pipe_gets_the_bytes(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        replace_file(tmp_path / "pipe", b"bytes")
        assert read.result(timeout=30) == b"bytes"
    assert (tmp_path / "pipe").is_fifo()


def test_members_that_tarfile_does_not_know_do_not_swallow_others(tmp_path: Path):
    path = tar_of(tmp_path / "all.tar", ["a.png"])
    with tarfile.open(path, "a") as archive:
        dump = tarfile.TarInfo("dump")
        dump.type, dump.size = b"D", 600
        archive.addfile(dump, io.BytesIO(bytes(600)))
    with tarfile.open(tar_of(tmp_path / "more.tar", ["z.png"])) as more, tarfile.open(path, "a") as archive:
        archive.addfile(more.getmembers()[0], more.extractfile("z.png"))
    Image.new("RGB", (20, 20)).save(tmp_path / "n.png")
    translate_files(Negative(), tmp_path / "n.png", path, format="png")
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a.png", "z.png", "n.png"]


@pytest.mark.parametrize("before", ["", "./"])
def test_links_lead_where_tar_takes_them(tmp_path: Path, before: str):
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
            member = tarfile.TarInfo(before + name)
            member.type, member.linkname, member.size = kind, target, len(content)
            archive.addfile(member, io.BytesIO(content))

        add("a.png", b"first")
        add("b.png", kind=tarfile.LNKTYPE, target=f"{before}a.png")
        add("a.png", kind=tarfile.LNKTYPE, target=f"{before}a.png")  # as tar writes a file that is named twice
        add("a.png", b"second")
        add("sub/c.png", kind=tarfile.SYMTYPE, target="../a.png")
        add("sub/d.png", kind=tarfile.SYMTYPE, target="c.png")
    with open_archive(str(path)) as archive:
        found = [read_member(archive, member) for _, member in images_in(archive)]
    assert found == [b"first", b"first", b"first", b"second", b"second", b"second"]


def test_a_file_that_is_written_by_many_at_once_is_always_whole(tmp_path: Path):
    path, contents = tmp_path / "file", [bytes([value]) * 100_000 for value in range(4)]

    def write(content: bytes) -> None:
        for _ in range(50):
            replace_file(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_that_breaks_off_leaves_the_old_one(tmp_path: Path):
    (tmp_path / "images.zip").write_bytes(b"old")

    def breaks():
        yield "a", torch.zeros(3, 16, 16, dtype=torch.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate_to_zip(Negative(), breaks(), tmp_path / "images.zip", size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["images.zip"]
    assert (tmp_path / "images.zip").read_bytes() == b"old"
