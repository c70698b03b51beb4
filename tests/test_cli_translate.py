"""``ganparts translate``, and the translation of files behind it."""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
import time
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from safetensors.torch import save_file
from torch import Tensor, nn

from ganparts import DISCRIMINATORS, GENERATORS, cli
from ganparts.cli.app import load_generator
from ganparts.data import ImageEntry, sample
from ganparts.interchange import export_generator, from_pretrained, save_pretrained
from ganparts.translate import TilingError, pipeline, sinks, translate, translate_files, translate_to_zip
from ganparts.translate.encoding import Encoding


class Negative(nn.Module):
    """Turns a picture into its negative."""

    size_multiple = 16

    def forward(self, images: Tensor) -> Tensor:
        return -images


def pixels_of(path: Path | io.BytesIO) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.array(image).astype(int)


def gradient(height: int, width: int, channels: int = 3) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack([255 * rows / height, 255 * columns / width, 40 + 0 * rows], -1)[..., :channels]
    return values.astype(np.uint8)


def make_photos(folder: Path) -> dict[str, np.ndarray]:
    """A folder as people have them; returns the pixels of what can be read, by stem."""
    folder.mkdir()
    rgb = Image.fromarray(gradient(20, 30))
    rgb.save(folder / "plain.png")
    rgb.save(folder / "a png called.jpg", "PNG")
    rgb.save(folder / "UPPER.PNG")
    rgb.save(folder / "Fotografía é 水.webp", lossless=True)
    rgb.convert("L").save(folder / "grey.bmp")
    sixteen = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    Image.fromarray(sixteen).save(folder / "sixteen.tif")
    rgba = rgb.convert("RGBA")
    rgba.putalpha(Image.new("L", rgb.size, 0))
    rgba.save(folder / "transparent.png")
    rgb.convert("CMYK").save(folder / "cmyk.tiff")
    rotated = Image.Exif()
    rotated[0x0112] = 6  # shown turned by 90 degrees
    rgb.save(folder / "rotated.png", exif=rotated)
    srgb, lab = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
    in_lab = ImageCms.profileToProfile(rgb, srgb, lab, outputMode="LAB")
    assert in_lab is not None
    in_lab.save(folder / "profiled.tif", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    Image.fromarray(gradient(700, 900)).save(folder / "large.png")
    plain, grey = np.asarray(rgb), np.asarray(rgb.convert("L").convert("RGB"))
    return {
        **dict.fromkeys(("plain", "a png called", "UPPER", "Fotografía é 水", "cmyk", "profiled"), plain),
        **dict.fromkeys(("grey", "sixteen"), grey),
        "transparent": np.full_like(plain, 255),
        "rotated": np.rot90(plain, -1),
        "large": gradient(700, 900),
    }


def break_some(folder: Path) -> list[str]:
    (folder / "cut.jpg").write_bytes((folder / "large.png").read_bytes()[:3000])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    bomb = bytearray((folder / "plain.png").read_bytes())
    bomb[16:24] = (100_000).to_bytes(4, "big") * 2
    (folder / "huge.png").write_bytes(bomb)
    (folder / "folder.jpg").mkdir()
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("not looked at")
    return ["cut.jpg", "text.jpg", "empty.png", "float.tif", "huge.png"]


def test_a_folder_as_people_have_them(tmp_path: Path):
    expected = make_photos(tmp_path / "photos")
    broken = break_some(tmp_path / "photos")
    report = translate_files(Negative(), [tmp_path / "photos"], tmp_path / "out", format="png")
    assert (report.written, report.skipped, report.failed) == (len(expected), 0, len(broken))
    for name in broken:
        start = f"cannot read the image {tmp_path}/photos/{name}: "
        assert len([problem for problem in report.problems if problem.startswith(start)]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{stem}.png" for stem in expected)
    for stem, pixels in expected.items():
        painted = pixels_of(tmp_path / "out" / f"{stem}.png")
        assert painted.shape == pixels.shape, stem
        difference = np.abs(painted - (255 - pixels.astype(int)))
        assert difference.mean() < 4 if stem == "profiled" else not difference.any(), stem  # 8-bit LAB is coarse


def test_a_second_run_goes_on(tmp_path: Path):
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    first = translate_files(Negative(), [tmp_path / "photos"], out)
    (out / "plain.jpg").unlink()
    written = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    time.sleep(0.02)
    second = translate_files(Negative(), [tmp_path / "photos"], out)
    assert (second.written, second.skipped, second.failed) == (1, first.written - 1, 0)
    assert {name: (out / name).stat().st_mtime_ns for name in written} == written
    time.sleep(0.02)
    third = translate_files(Negative(), [tmp_path / "photos"], out, overwrite=True)
    assert (third.written, third.skipped) == (first.written, 0)
    assert all((out / name).stat().st_mtime_ns > before for name, before in written.items())


def test_a_result_from_a_clock_that_is_ahead_is_done(tmp_path: Path):
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    translate_files(Negative(), [tmp_path / "photo.png"], tmp_path / "out")
    ahead = time.time() + 3600
    os.utime(tmp_path / "out" / "photo.jpg", (ahead, ahead))  # as copied from another machine
    report = translate_files(Negative(), [tmp_path / "photo.png"], tmp_path / "out")
    assert (report.written, report.skipped, report.problems) == (0, 1, [])
    report = translate_files(Negative(), [tmp_path / "photo.png"] * 2, tmp_path / "out", overwrite=True)
    assert (report.written, report.failed) == (1, 1)


def test_photos_are_cropped_or_squashed_to_a_size(tmp_path: Path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    translate_files(Negative(), [tmp_path / "wide.png"], tmp_path / "cut", size=16, format="png")
    assert np.array_equal(pixels_of(tmp_path / "cut" / "wide.png"), np.full((16, 16, 3), 55))
    translate_files(Negative(), [tmp_path / "wide.png"], tmp_path / "all", size=16, squash=True, format="png")
    assert pixels_of(tmp_path / "all" / "wide.png")[:, 0].min() > 240
    translate_files(Negative(), [tmp_path / "wide.png"], tmp_path / "whole", resize=20, format="png")
    assert np.array_equal(pixels_of(tmp_path / "whole" / "wide.png")[5, [5, 30, 55], 0], [255, 55, 255])
    assert pixels_of(tmp_path / "whole" / "wide.png").shape == (20, 60, 3)
    with pytest.raises(ValueError, match="size makes squares and resize keeps the aspect ratio: give one of them"):
        translate_files(Negative(), [tmp_path / "wide.png"], tmp_path / "out", size=16, resize=20)
    Image.new("RGB", (60_000, 3)).save(tmp_path / "thin.png")
    report = translate_files(Negative(), [tmp_path / "thin.png"], tmp_path / "out", resize=300)
    assert f"{tmp_path}/thin.png: an image of 60000 x 3 pixels is too narrow" in report.problems[0]
    with pytest.raises(ValueError, match=r"squash=True needs the size .*--size"):
        translate_files(Negative(), [tmp_path / "wide.png"], tmp_path / "out", squash=True)


class Framed(Negative):
    """Leaves a black frame, two pixels wide."""

    def forward(self, images: Tensor) -> Tensor:
        framed = torch.full_like(images, -1)
        framed[..., 2:-2, 2:-2] = super().forward(images)[..., 2:-2, 2:-2]
        return framed


@pytest.mark.parametrize("size", [(9, 7), (1, 3)])
def test_a_margin_is_painted_and_cut_off(tmp_path: Path, size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 200, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    for margin, same in ((0, False), (2, True), (5, True)):
        out = tmp_path / str(margin)
        translate_files(Framed(), tmp_path / "photo.png", out, margin=margin, format="png")
        assert np.array_equal(pixels_of(out / "photo.png"), 255 - pixels) is same
    with pytest.raises(ValueError, match="margin=-1: give a whole number, at least 0"):
        translate_files(Framed(), tmp_path / "photo.png", tmp_path / "out", margin=-1)


def test_a_margin_is_mirrored():
    pixels = torch.arange(4).expand(3, 2, 4)
    padded = pipeline._mirrored(pixels, 5)
    assert padded[0, 0].tolist() == [1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert padded.shape == (3, 12, 14)


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, (2, 2)),
        ({"subsampling": "4:2:0"}, (2, 2)),
        ({"subsampling": "4:2:2"}, (2, 1)),
        ({"subsampling": "4:4:4"}, (1, 1)),
    ],
)
def test_quality_and_subsampling_of_jpegs(tmp_path: Path, options, layers: tuple[int, int]):
    picture = torch.from_numpy(gradient(20, 30)).permute(2, 0, 1)
    default = io.BytesIO()
    Image.fromarray(gradient(20, 30)).save(default, "JPEG", quality=75)
    encoded = Encoding(quality=75, **options).encode(picture)
    assert (encoded == default.getvalue()) == (layers == (2, 2))  # Pillow's own is 4:2:0
    with Image.open(io.BytesIO(encoded)) as image:
        assert isinstance(image, JpegImageFile)
        assert [layer[1:3] for layer in image.layer] == [layers, (1, 1), (1, 1)]
        expected = image.quantization
    Image.fromarray(255 - gradient(20, 30)).save(tmp_path / "photo.png")
    translate_files(Negative(), [tmp_path / "photo.png"], tmp_path / "out", quality=75, **options)
    translate_to_zip(
        Negative(), [("photo", 255 - picture)], tmp_path / "x.zip", size=20, quality=75, squash=True, **options
    )
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        inside = io.BytesIO(archive.read("photo.jpg"))
    assert (tmp_path / "out" / "photo.jpg").read_bytes() == encoded
    with Image.open(inside) as image:
        assert isinstance(image, JpegImageFile)
        assert image.layer[0][1:3] == layers
        assert image.quantization == expected
    for wrong in ({"quality": 0}, {"quality": 101}, {"quality": 90.5}, {"subsampling": "4:1:1"}, {"format": "gif"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Encoding(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_run_begins_before_the_photos_are_counted(tmp_path: Path, monkeypatch, capsys):
    """However many they are: the count comes when it comes."""
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    model, translated = tmp_path / "model", threading.Event()
    save_pretrained(GENERATORS.create("resnet6", width=2), model)
    real = translate_files

    def count(inputs: object, out: object) -> Iterator[int]:
        assert translated.wait(30)
        yield from range(3)

    def run_first(*arguments, **options):
        report = real(*arguments, **options)
        translated.set()
        return report

    command = importlib.import_module("ganparts.cli.translate")
    monkeypatch.setattr(command, "find_photos", count)
    monkeypatch.setattr(command, "translate_files", run_first)
    code, said = run(monkeypatch, capsys, model, tmp_path, "-o", tmp_path / "out", "--device", "cpu")
    assert code == 0
    assert "3/3" in said


def test_archives_in_and_out(tmp_path: Path):
    expected = make_photos(tmp_path / "photos")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in (tmp_path / "photos").iterdir():
            archive.write(path, f"in a folder/{path.name}")
        archive.writestr("__MACOSX/plain.png", b"")
        archive.writestr("bad.png", b"no picture")
    out = tmp_path / "out.ZIP"
    report = translate_files(Negative(), [tmp_path / "photos.zip"], out, format="png")
    assert report.problems == [
        f"cannot read the image bad.png in {tmp_path}/photos.zip: it is not an image that Pillow knows"
    ]
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == sorted(f"{stem}.png" for stem in expected)
        assert np.array_equal(pixels_of(io.BytesIO(archive.read("plain.png"))), 255 - expected["plain"].astype(int))
    Image.new("RGB", (4, 4)).save(tmp_path / "another.png")
    again = translate_files(Negative(), [tmp_path / "photos.zip", tmp_path / "another.png"], out, format="png")
    assert (again.written, again.skipped, again.failed) == (1, len(expected), 1)
    with zipfile.ZipFile(out) as archive:
        assert len(archive.namelist()) == len(expected) + 1
        assert archive.testzip() is None
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "photos.zip", "out.ZIP", "another.png"}


def test_patterns_and_inputs_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/one.png", "a/b/two.png", "a/b/three.txt", "odd.name"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name, "PNG")
    Path("empty").mkdir()
    Path("broken.zip").write_bytes(zip_of("x")[:-10])
    report = translate_files(
        Negative(), ["a/**/*.png", "odd.name", "absent.jpg", "empty", "*.tif", "broken.zip"], "out", quality=50
    )
    assert sorted(path.name for path in Path("out").iterdir()) == ["odd.jpg", "one.jpg", "two.jpg"]
    assert report.problems[0] == "absent.jpg: there is no such file or folder"
    assert report.problems[1].startswith("empty: no images in it that end in .jpg, .jpeg, ")
    assert report.problems[2] == "*.tif: no file matches this pattern"
    assert report.problems[3].startswith("cannot read the image broken.zip: ")
    assert len(report.problems) == 4


def zip_of(name: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, "")
    return held.getvalue()


@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_two_inputs_never_share_a_result(tmp_path: Path, out: str):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "x.png")
    report = translate_files(Negative(), [tmp_path / "a", tmp_path / "b"], tmp_path / out)
    assert report.written == 1
    problem = f"{tmp_path}/b/x.png: another input, or another run just now, has the result x.jpg: rename one of them"
    assert report.problems == [problem]
    assert translate_files(Negative(), [tmp_path / "a", tmp_path / "b"], tmp_path / out).skipped == 2


def test_photos_are_never_overwritten(tmp_path: Path):
    make_photos(tmp_path / "photos")
    with pytest.raises(ValueError, match="photos is both input and output: give another folder or archive"):
        translate_files(Negative(), [tmp_path / "photos"], tmp_path / "photos")
    before = (tmp_path / "photos" / "a png called.jpg").read_bytes()
    report = translate_files(
        Negative(), [tmp_path / "photos" / "a png called.jpg"], tmp_path / "photos", overwrite=True
    )
    assert report.problems == [
        f"{tmp_path}/photos/a png called.jpg: its result would replace it: give another folder for the results (-o)"
    ]
    assert (tmp_path / "photos" / "a png called.jpg").read_bytes() == before


@pytest.mark.parametrize("way", ["a pattern", "a link", "a detour"])
def test_photos_are_never_overwritten_whatever_their_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.new("RGB", (4, 4)).save("photos/x.jpg")
    Path("link").symlink_to("photos")
    before = Path("photos/x.jpg").read_bytes()
    given, out = {"a pattern": ("photos/*.jpg", tmp_path / "photos"), "a link": ("link/x.jpg", Path("photos"))}.get(
        way, ("photos/x.jpg", Path("photos/../photos"))
    )
    for overwrite in (False, True):
        report = translate_files(Negative(), [given], out, overwrite=overwrite)
        assert (report.written, report.skipped, report.failed) == (0, 0, 1)
        assert "its result would replace it" in report.problems[0]
    assert Path("photos/x.jpg").read_bytes() == before


@pytest.mark.parametrize("out", ["photos/paintings", "paintings", "link/paintings"])
def test_paintings_inside_the_folder_that_a_pattern_searches_are_no_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.jpg", "photos/sub/b.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name)
    Path("link").symlink_to("photos")
    for written, skipped in ((2, 0), (0, 2)):
        report = translate_files(Negative(), ["photos/**/*.jpg"], out)
        assert (report.written, report.skipped, report.problems) == (written, skipped, [])
    assert translate_files(Negative(), [f"{out}/*.jpg"], "again").written == 2  # asked for by name
    for overwrite, written in ((False, 1), (False, 0), (True, 1)):
        report = translate_files(Negative(), ["photos/sub/*"], "photos/sub/out.zip", overwrite=overwrite)
        assert (report.written, report.problems) == (written, [])
    assert translate_files(Negative(), ["photos/sub/*.jpg"], ".").written == 1  # the pattern is inside the results
    Path("albums/rome").mkdir(parents=True)
    Path("photos/a.jpg").rename("albums/rome/a.jpg")
    report = translate_files(Negative(), ["albums/*/*.jpg"], "albums/rome")
    assert report.problems == ["albums/*/*.jpg: all that matches is in albums/rome, where the results go (-o)"]


def test_a_picture_too_long_for_a_jpeg_costs_no_other(tmp_path: Path):
    Image.new("RGB", (4, 65_501)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    report = translate_files(Negative(), [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out")
    assert (report.written, report.failed) == (1, 1)
    assert report.problems == [
        f"{tmp_path}/a.png: a JPEG's sides have at most 65,500 pixels, and this picture has 4 x 65,501: write PNG "
        "(--format png), or make it smaller (--resize)"
    ]
    for options in ({"format": "png"}, {"size": 8, "squash": True}):
        again = translate_files(Negative(), [tmp_path / "a.png"], tmp_path / "other", overwrite=True, **options)
        assert again.written == 1


def test_names_that_files_cannot_have(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    longest = "é" * 125 + "x.png"  # 255 bytes
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / longest)
    with zipfile.ZipFile(tmp_path / "long.zip", "w") as archive:
        archive.writestr("y" * 300 + ".png", (tmp_path / "photos" / longest).read_bytes())
    report = translate_files(Negative(), [tmp_path / "photos", tmp_path / "long.zip"], tmp_path / "out")
    assert (report.written, report.failed) == (1, 1)
    assert "its result's name is too long for a file: rename the photo" in report.problems[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [longest.replace("png", "jpg")]
    assert translate_files(Negative(), [tmp_path / "long.zip"], tmp_path / "out.zip").written == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "photos").mkdir()
    for ending in (b"\xe9", b"\xe8"):
        Image.new("RGB", (4, 4)).save(plain := tmp_path / "photos" / "plain.png")
        os.rename(plain, os.path.join(os.fsencode(tmp_path / "photos"), b"caf" + ending + b".png"))
    photos = sorted((tmp_path / "photos").iterdir())
    for written, skipped in ((1, 0), (0, 1)):
        report = translate_files(Negative(), photos[:1], tmp_path / "out.zip")
        assert (report.written, report.skipped, report.failed) == (written, skipped, 0)
    assert translate_files(Negative(), photos, tmp_path / "both.zip").failed == 1  # in an archive they are one name
    with zipfile.ZipFile(tmp_path / "both.zip") as archive:
        assert archive.namelist() == ["caf?.jpg"]
    assert translate_files(Negative(), photos, tmp_path / "out").written == 2
    assert translate_to_zip(Negative(), [(photos[0].stem, torch.zeros(3, 4, 4).byte())], tmp_path / "images.zip") == 1


def test_an_interrupted_run_into_an_archive_is_continued(tmp_path: Path):
    for number in range(4):
        Image.new("RGB", (4, 4 + 16 * number), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    photos = [tmp_path / f"{number}.png" for number in range(4)]

    class Stops(Negative):
        def forward(self, images: Tensor) -> Tensor:
            if images.shape[2] > 40:
                raise KeyboardInterrupt
            return super().forward(images)

    for name in ("out.zip", "out.tar"):
        out = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            translate_files(Stops(), photos, out, batch_size=1)
        report = translate_files(Negative(), photos, out)
        assert (report.written, report.skipped) == (2, 2)
        before = out.read_bytes()
        with pytest.raises(KeyboardInterrupt):
            translate_files(Stops(), photos, out, overwrite=True, batch_size=1)
        assert out.read_bytes() == before  # all four
    assert not list(tmp_path.glob("*.partial"))


def test_an_archive_with_a_member_that_was_cut_short_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(2):
        Image.new("RGB", (4, 4 + 16 * number)).save(tmp_path / f"{number}.png")
    add = sinks._Zip.add

    def full(archive: sinks._Zip, name: str, content: bytes) -> None:
        if name.startswith("1"):
            raise OSError("no space left")
        add(archive, name, content)

    monkeypatch.setattr(sinks._Zip, "add", full)
    with pytest.raises(OSError, match="no space left"):
        translate_files(Negative(), [tmp_path / "0.png", tmp_path / "1.png"], tmp_path / "out.zip", batch_size=1)
    assert not list(tmp_path.glob("out*"))


def test_a_run_that_breaks_off_leaves_only_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_photos(tmp_path / "photos")
    translate_files(Negative(), [tmp_path / "photos" / "plain.png"], tmp_path / "out.zip")
    before = (tmp_path / "out.zip").read_bytes()

    class Fails(Negative):
        def forward(self, images: Tensor) -> Tensor:
            raise KeyboardInterrupt

    for out in ("out", "out.zip"):
        with pytest.raises(KeyboardInterrupt):
            translate_files(Fails(), [tmp_path / "photos"], tmp_path / out)
    assert (tmp_path / "out.zip").read_bytes() == before
    monkeypatch.setattr(sinks.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        translate_files(Negative(), [tmp_path / "photos"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "out", "out.zip"}


def test_memory_is_constant_and_batches_are_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However many the photos are, and though the network is slow: some for each thread, and twice a batch."""
    for index in range(120):
        Image.new("RGB", (16, 16 * (1 + index % 3))).save(tmp_path / f"{index}.png")
    live = most = 0
    real = ImageEntry.load

    def counted(entry: ImageEntry) -> Tensor:
        nonlocal live, most
        pixels = real(entry)
        live += 1
        most = max(most, live)
        weakref.finalize(pixels, gone)
        return pixels

    def gone() -> None:
        nonlocal live
        live -= 1

    batches = []

    class Slow(Negative):
        def forward(self, images: Tensor) -> Tensor:
            batches.append(len(images))
            time.sleep(0.01)
            return super().forward(images)

    monkeypatch.setattr(ImageEntry, "load", counted)
    report = translate_files(Slow(), [tmp_path], tmp_path / "out", batch_size=4, workers=2)
    assert report.written == 120
    assert most <= 2 * 4 + 4 + (2 + 1) + 2  # waiting for their batch, in a batch, decoded ahead, one in hand
    assert live == 0
    assert max(batches) == 4
    assert len(batches) <= 33


def test_large_photos_go_alone_and_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for index in range(5):
        Image.fromarray(gradient(40, 40)).save(tmp_path / f"{index}.png")
    monkeypatch.setattr("ganparts.translate.image.pixels_at_once", lambda device: 1000)
    monkeypatch.setattr(pipeline, "pixels_at_once", lambda device: 1000)
    network = GENERATORS.create("resnet6", width=2).eval()
    translate_files(network, [tmp_path], tmp_path / "out", format="png", batch_size=4, precision="fp32")
    monkeypatch.undo()
    whole = np.array(translate(network, tmp_path / "0.png", precision="fp32")).astype(int)
    assert np.abs(pixels_of(tmp_path / "out" / "3.png") - whole).max() <= 1

    class Refuses(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise TilingError("cannot be tiled")

    report = translate_files(Refuses(), [tmp_path], tmp_path / "refused")
    assert (report.written, report.failed) == (0, 5)
    assert report.problems[0].endswith(".png: cannot be tiled")


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", "translate", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out + captured.err


def test_the_command(tmp_path: Path, monkeypatch, capsys):
    make_photos(tmp_path / "photos")
    model, out = tmp_path / "model", tmp_path / "out"
    network = GENERATORS.create("resnet6", width=2).eval()
    save_pretrained(network, model)
    code, said = run(monkeypatch, capsys, model, tmp_path / "photos", "-o", out, "--device", "cpu", "--format", "png")
    assert code == 0
    assert "11/11" in said
    assert f"{out}: 11 written, 0 there already, 0 failed" in said
    whole = np.array(translate(network, tmp_path / "photos" / "plain.png")).astype(int)
    assert np.abs(pixels_of(out / "plain.png") - whole).max() <= 1
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    code, said = run(monkeypatch, capsys, model, tmp_path / "photos", "-o", out, "--device", "cpu", "--format", "png")
    assert code == 1
    assert f"{out}: 0 written, 11 there already, 1 failed" in said
    assert f"failed: cannot read the image {tmp_path}/photos/bad.jpg: it is not an image that Pillow knows" in said
    square = (
        "--size",
        64,
        "--squash",
        "--subsampling",
        "4:4:4",
        "--tile",
        16,
        "--quality",
        30,
        "--batch-size",
        3,
        "--overwrite",
        "--device",
        "cpu",
    )
    plain = tmp_path / "photos" / "plain.png"
    code, _ = run(monkeypatch, capsys, model, plain, "-o", tmp_path / "small", "--resize", 24, "--format", "png")
    assert code == 0
    assert min(pixels_of(tmp_path / "small" / "plain.png").shape[:2]) == 24
    code, said = run(monkeypatch, capsys, model, tmp_path / "photos" / "*.png", "-o", out, *square)
    assert code == 0
    assert pixels_of(out / "large.jpg").shape == (64, 64, 3)
    assert not (out / "sixteen.jpg").exists()


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch, capsys):
    model, judge = tmp_path / "model", tmp_path / "judge"
    save_pretrained(GENERATORS.create("resnet6", width=2), model)
    save_pretrained(DISCRIMINATORS.create("pixel", width=2), judge)
    (tmp_path / "file").touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    out = ("-o", tmp_path / "out", "--device", "cpu")
    photo = tmp_path / "photo.png"
    for arguments, message in (
        ((tmp_path / "nothing", photo, *out), "nothing: give a pretrained folder (config.json and model.safetensors)"),
        ((tmp_path / "file", photo, *out), "file is a file: give a pretrained folder"),
        (
            (model, photo, *out, "--imports", "no_parts"),
            "Python finds no module of this name. Put the folder that holds",
        ),
        ((model, photo, *out, "--imports", "./parts/no_parts.py"), "not its file: --imports parts.no_parts. Put"),
        ((judge, photo, *out), "judge holds a discriminator, and this takes a generator"),
        ((model, *out), "no inputs: give files, folders, patterns or archives (.zip, .tar) after the model"),
        ((model, photo, *out, "--quality", 0), "quality=0: give a whole number from 1 to 100"),
        ((model, photo, *out, "--quality", 101), "quality=101: give a whole number from 1 to 100"),
        ((model, photo, *out, "--batch-size", 0), "batch_size=0: give a whole number, at least 1"),
        ((model, photo, *out, "--tile", -5), "tile=-5 pixels: give the side of a tile, 0 for none, or leave it out"),
        ((model, photo, "-o", tmp_path / "file"), "file is a file: give a folder, a .zip or a .tar"),
        ((model, photo, "-o", tmp_path / "broken.zip"), "broken.zip is not a zip archive that can be read"),
    ):
        code, said = run(monkeypatch, capsys, *arguments)
        assert code == 1
        assert message in said.splitlines()[-1]
        assert "Traceback" not in said
    assert not (tmp_path / "broken.zip.partial").exists()


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_an_exported_model_translates_as_the_folder_does(tmp_path: Path):
    model = tmp_path / "model"
    save_pretrained(GENERATORS.create("resnet6", width=2), model)
    export_generator(from_pretrained(model), tmp_path / "model.onnx")
    photo = sample() / "testA" / "pontduGard_0.jpg"
    for name, path in (("folder", model), ("onnx", tmp_path / "model.onnx")):
        generator = load_generator(str(path), device=torch.device("cpu"))
        assert generator.size_multiple == 4
        translate(generator, photo, precision="fp32").save(tmp_path / f"{name}.png")
    with pytest.raises(
        TilingError, match=r"OnnxGenerator takes pictures whole, .* \(--resize\), or give it in one piece"
    ):
        translate(generator, photo, tile=64)
    with Image.open(tmp_path / "folder.png") as one, Image.open(tmp_path / "onnx.png") as two:
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(two, dtype=int)).max() <= 1


def test_a_part_of_ones_own_is_imported_first(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "inverting.py").write_text(
        "import torch\n"
        "from ganparts import GENERATORS\n"
        "class Inverted(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.factor = torch.nn.Parameter(torch.tensor(-1.0))\n"
        "    def forward(self, images):\n"
        "        return self.factor * images\n"
        "GENERATORS.register('inverted')(Inverted)\n"
    )
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        '{"kind": "generator", "name": "inverted", "options": {}, "module": "inverting"}'
    )
    save_file({"factor": torch.tensor(-1.0)}, model / "model.safetensors")
    photo = sample() / "testA" / "pontduGard_0.jpg"
    command = (model, photo, "-o", tmp_path, "--format", "png", "--device", "cpu")
    code, said = run(monkeypatch, capsys, *command)
    assert code == 1
    assert "It was not imported, because that runs its code" in said
    assert "import inverting first (in a command: --imports inverting)" in said
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        code, said = run(monkeypatch, capsys, *command, "--imports", "inverting")
        assert code == 0, said
    finally:
        GENERATORS.remove("inverted")
    inverted = 255 - pixels_of(photo).astype(int)
    assert np.abs(pixels_of(tmp_path / "pontduGard_0.png") - inverted).max() <= 1
