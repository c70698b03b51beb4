from __future__ import annotations

import io
import itertools
import random
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from ganparts import Pair
from ganparts.data import (
    DataError,
    ImageEntry,
    Images,
    PairDataset,
    UnreadableImageError,
    decode_image,
    decoding,
    load_pairs,
    open_domains,
    open_images,
    resize,
    resize_square,
    sample,
    to_bytes,
    to_unit_range,
)
from ganparts.data.decoding import encoded_dimensions, to_rgb
from ganparts.data.entries import evenly
from ganparts.data.tfrecord import TFRecordError, masked_crc, read_examples, read_records


def png(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


# --- TFRecords, written here by hand


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def example(**features: bytes) -> bytes:
    entries = (
        field(1, field(1, name.encode()) + field(2, field(1, field(1, value)))) for name, value in features.items()
    )
    return field(1, b"".join(entries))


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def write_records(path: Path, count: int, seed: int = 0) -> list[np.ndarray]:
    images = [colours(seed + i) for i in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    records = (
        record(example(image_name=f"{seed + i:05}.png".encode(), image=png(Image.fromarray(image)), target=b"x"))
        for i, image in enumerate(images)
    )
    path.write_bytes(b"".join(records))
    return images


def write_folder(folder: Path, count: int, seed: int = 0, size: int = 8) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(colours(seed + i, size)).save(folder / f"{i:03}.png")
    return folder


def test_the_checksum_is_tensorflows():
    # of an empty record as TensorFlow writes it: length 0, its checksum, the checksum of nothing
    assert record(b"") == bytes.fromhex("000000000000000029039807d8ea82a2")


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_records_come_back_with_their_place(tmp_path_factory, payloads):
    path = tmp_path_factory.mktemp("records") / "x.tfrec"
    path.write_bytes(b"".join(map(record, payloads)))
    found = list(read_records(path))
    assert [data for _, _, data in found] == payloads
    assert [number for number, _, _ in found] == list(range(len(payloads)))
    whole = path.read_bytes()
    assert all(whole[offset : offset + len(data)] == data for _, offset, data in found)


@given(st.dictionaries(st.text(max_size=10), st.binary(max_size=200), max_size=4))
def test_bytes_features_come_back(tmp_path_factory, features):
    path = tmp_path_factory.mktemp("records") / "x.tfrec"
    entries = (field(1, field(1, n.encode()) + field(2, field(1, field(1, v)))) for n, v in features.items())
    numbers = field(1, field(1, b"number") + field(2, field(3, field(1, varint(300)))))  # an int64 feature: left out
    path.write_bytes(record(field(1, numbers + b"".join(entries))))
    ((_, found),) = read_examples(path)
    assert {name: feature.value for name, feature in found.items()} == features
    whole = path.read_bytes()
    assert all(whole[f.offset : f.offset + len(f.value)] == f.value for f in found.values())


def test_images_of_records_are_named_and_decoded(tmp_path: Path):
    written = write_records(tmp_path / "photo_tfrec" / "photo00-3.tfrec", 3)
    written += write_records(tmp_path / "photo_tfrec" / "photo04-2.tfrec", 2, seed=3)
    images = open_images(tmp_path / "photo_tfrec")
    assert [entry.name for entry in images.entries] == ["00000", "00001", "00002", "00003", "00004"]
    for image, expected in zip(images, written, strict=True):
        assert torch.equal(image, torch.from_numpy(expected).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data, middle: data[:-3], "claims .* bytes, but the file ends before"),
        (lambda data, middle: data[: -len(data) + 2 * middle + 5], "ends inside the record's header"),
        (lambda data, middle: flip(data, 2 * middle + 40), "checksum of its data is wrong"),
        (lambda data, middle: flip(data, 2 * middle + 1), "checksum of its length is wrong"),
    ],
)
def test_damaged_records_are_named_or_skipped(tmp_path: Path, damage, reason):
    path = tmp_path / "records" / "a.tfrec"
    write_records(path, 1)
    middle = path.stat().st_size
    path.write_bytes(path.read_bytes() * 3)
    path.write_bytes(damage(path.read_bytes(), middle))
    with pytest.raises(DataError, match=rf"a\.tfrec, record 2 \(counted from 0\): .*{reason}.*--skip-unreadable"):
        open_images(path.parent)
    with pytest.warns(UserWarning, match="skipped: .*record 2"):
        assert len(open_images(path.parent, skip_unreadable=True)) == 2


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_a_record_whose_length_looks_like_gzip_is_read(tmp_path: Path):
    (tmp_path / "a.tfrec").write_bytes(record(bytes(0x8B1F)))
    assert [len(data) for _, _, data in read_records(tmp_path / "a.tfrec")] == [0x8B1F]


def test_foreign_records_are_refused(tmp_path: Path):
    path = tmp_path / "a.tfrec"
    path.write_bytes(b"\x1f\x8b" + bytes(50))
    with pytest.raises(TFRecordError, match="compressed with gzip"):
        list(read_records(path))
    path.write_bytes(record(b"\xff\xff\xff"))
    with pytest.raises(TFRecordError, match=r"record 0 .* not a tf\.train\.Example"):
        list(read_examples(path))
    path.write_bytes(record(example(picture=b"x")))
    with pytest.raises(DataError, match=r"record 0 .*: no bytes feature 'image', only picture"):
        open_images(tmp_path)
    path.write_bytes(record(example(picture=b"x")) + record(example(image=b"x")))
    with pytest.warns(UserWarning, match=r"skipped: .*record 0 .*: no bytes feature 'image'"):
        assert len(open_images(tmp_path, skip_unreadable=True)) == 1


@given(st.data())
def test_a_mutated_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("records") / "a.tfrec"
    whole = bytearray(record(example(image=b"abc", image_name=b"n")) * 2)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    payload = example(image=b"abc", image_name=b"n")
    cut = data.draw(st.integers(0, len(payload)))
    for content in (bytes(whole), record(payload[:cut]), record(data.draw(st.binary(max_size=60)))):
        path.write_bytes(content)
        try:
            found = list(read_examples(path))
        except TFRecordError as error:
            assert str(path) in str(error)
        else:
            assert len(found) <= 2


# --- decoding


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LAB", "RGB"])
def test_every_mode_becomes_rgb(mode: str):
    image = Image.fromarray(colours()).convert(mode)
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
    decoded = decode_image(png(image, kind))
    assert decoded.shape == (3, 8, 8)
    assert decoded.dtype == torch.uint8
    with Image.open(io.BytesIO(png(image, kind))) as again:
        expected = np.array(again.convert("RGB"))
    assert torch.equal(decoded, torch.from_numpy(expected).permute(2, 0, 1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind: str):
    grey = np.array([[0, 257, 128 * 257, 65535, 128, 129, 65535 - 128]], dtype=np.uint16)
    decoded = decode_image(png(Image.fromarray(grey), kind))
    assert decoded[0, 0].tolist() == [0, 1, 128, 255, 0, 1, 255]
    assert torch.equal(decoded[0], decoded[2])


def test_a_transparent_colour_of_16_bits_is_that_colour_alone():
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    for key, expected in ((256, [0, 255, 128, 255]), (32768, [0, 1, 255, 255]), (65535, [0, 1, 128, 255])):
        decoded = decode_image(png(Image.fromarray(values), transparency=key))
        assert decoded[0, 0].tolist() == expected
    assert to_rgb(Image.fromarray(values)).getpixel((1, 0)) == (1, 1, 1)
    coloured = Image.new("RGB", (2, 1))
    coloured.putpixel((0, 0), (0x12, 0, 0))
    coloured.info["transparency"] = (0x1200, 0, 0)  # as Pillow opens a file of 16 bits
    assert [to_rgb(coloured).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]
    assert coloured.info["transparency"] == (0x1200, 0, 0)


def test_dimensions_of_a_turned_image_are_the_same_in_all_formats():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for kind in ("TIFF", "PNG", "JPEG", "WEBP"):
        file = io.BytesIO()
        Image.new("RGB", (20, 10)).save(file, kind, exif=exif)
        assert encoded_dimensions(file.getvalue()) == tuple(decode_image(file.getvalue()).shape[1:]) == (20, 10)


def test_transparency_is_laid_on_white():
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = (0, 255, 128)
    assert decode_image(png(Image.fromarray(rgba)))[0, 0].tolist() == [255, 0, 127]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    decoded = decode_image(png(palette, transparency=0))
    assert decoded[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]
    grey_alpha = Image.fromarray(np.array([[[7, 255], [7, 0]]], dtype=np.uint8), "LA")
    assert decode_image(png(grey_alpha))[0, 0].tolist() == [7, 255]


def test_exif_orientation_is_applied():
    image = Image.fromarray(colours()[:4])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    decoded = decode_image(png(image, exif=exif))
    assert decoded.shape == (3, 8, 4)
    assert torch.equal(decoded, torch.from_numpy(np.rot90(np.array(image), -1).copy()).permute(2, 0, 1))


def heic(size: tuple[int, int] = (48, 32)) -> bytes:
    """A red photo of a phone that lay on its side."""
    image, exif, buffer = Image.new("RGB", size, (255, 0, 0)), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    pillow_heif.from_pillow(image).save(buffer, quality=-1, exif=exif.tobytes())
    return buffer.getvalue()


def test_photos_of_iphones_are_read(tmp_path: Path):
    (tmp_path / "IMG_1.HEIC").write_bytes(heic())
    (photo,) = open_images(tmp_path).entries
    assert photo.dimensions() == (48, 32)
    assert photo.load()[:, 3, 3].tolist() == pytest.approx([255, 0, 0], abs=2)
    assert photo.load().shape == (3, 48, 32)


def test_a_photo_of_an_iphone_names_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "IMG_1.HEIC").write_bytes(heic())
    decoding._read_heic.cache_clear()
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind != "HEIF"])
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for read in (ImageEntry.load, ImageEntry.dimensions):
        with pytest.raises(UnreadableImageError, match=r"IMG_1\.HEIC: an HEIC image needs .* 'ganparts\[heic\]'"):
            read(ImageEntry("IMG_1", tmp_path / "IMG_1.HEIC"))


@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
def test_avif_needs_no_other_package(brand: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    encoded = bytearray(png(Image.new("RGB", (8, 6), (255, 0, 0)), "AVIF"))
    assert encoded[8:12] == b"avif"
    encoded[8:12] = brand
    (tmp_path / "photo.avif").write_bytes(encoded)
    (entry,) = open_images(tmp_path).entries
    assert entry.load()[:, 0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_the_first_frame_of_a_gif_is_read(tmp_path: Path):
    first, second = Image.new("RGB", (8, 6), (255, 0, 0)), Image.new("RGB", (8, 6), (0, 255, 0))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    (entry,) = open_images(tmp_path).entries
    assert entry.load()[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"no image at all", "not an image that Pillow knows"),
        (png(Image.fromarray(colours(size=64)), "JPEG")[:-300], "truncated"),
        (png(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "TIFF"), "floating-point"),
        (png(Image.fromarray(np.full((2, 2), 70_000, dtype=np.int32)), "TIFF"), "more than 16 bits"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason_and_the_option(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"broken\.jpg: .*{reason}.*--skip-unreadable"):
        open_images(tmp_path)[0]
    with pytest.raises(UnreadableImageError, match=rf"broken\.jpg, record 3 \(counted from 0\): .*{reason}"):
        ImageEntry("broken", path, 3).load()


def test_a_picture_that_claims_to_be_enormous_is_refused(tmp_path: Path):
    whole = bytearray(png(Image.new("L", (10, 10))))
    whole[16:24] = struct.pack(">II", 100_000, 100_000)
    (tmp_path / "huge.png").write_bytes(whole)
    with pytest.raises(UnreadableImageError, match=r"huge\.png"):
        ImageEntry("huge", tmp_path / "huge.png").load()


@given(st.integers(0, 2**31), st.integers(1, 8))
def test_mutated_images_are_decoded_or_refused(seed: int, changes: int):
    draws = random.Random(seed)
    kind = draws.choice(["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
    content = bytearray(png(Image.fromarray(colours(size=16)), kind))
    for _ in range(changes):
        content[draws.randrange(len(content))] = draws.randrange(256)
    try:
        decoded = decode_image(bytes(content[: draws.randrange(len(content)) if draws.random() < 0.3 else None]))
    except ValueError as error:
        assert str(error)
    else:
        assert decoded.dtype == torch.uint8
        assert decoded.shape[0] == 3


def with_odd_metadata() -> bytes:
    """A picture that Pillow warns of: its EXIF data end too early."""
    return png(Image.fromarray(colours()), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")


def test_threads_that_decode_leave_everybodys_warnings_alone(monkeypatch: pytest.MonkeyPatch):
    """Two threads whose decoding overlaps, the first of which ends first."""
    second_began, first_ended, real = threading.Event(), threading.Event(), Image.open

    def wait(file: io.BytesIO) -> Image.Image:
        if threading.current_thread().name == "second":
            second_began.set()
            assert first_ended.wait(30)
        else:
            assert second_began.wait(30)
        return real(file)

    monkeypatch.setattr(Image, "open", wait)
    content = with_odd_metadata()
    decoded = []
    threads = [threading.Thread(target=lambda: decoded.append(decode_image(content)), name=n) for n in ("", "second")]
    threads[0].start()
    threads[1].start()
    threads[0].join()
    first_ended.set()
    threads[1].join()
    assert len(decoded) == 2
    with pytest.raises(UserWarning, match="still shown"):  # an error here, as pytest is set up
        warnings.warn("still shown", stacklevel=1)
    with pytest.raises(UserWarning, match="still shown"):
        warnings.warn_explicit("still shown", UserWarning, "pilot.py", 1, module="pilot")


def test_what_pillow_warns_of_is_no_error():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(with_odd_metadata())).getexif()
    assert caught  # so Pillow does warn of it
    count = len(warnings.filters)
    for _ in range(3):
        assert decode_image(with_odd_metadata()).shape == (3, 8, 8)
    assert len(warnings.filters) <= count + 1


@given(st.integers(0, 255))
def test_bytes_survive_the_way_to_floats_and_back(value: int):
    byte = torch.tensor(value, dtype=torch.uint8)
    unit = to_unit_range(byte)
    assert -1 <= unit <= 1
    assert to_bytes(unit) == byte
    assert to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


# --- folders and layouts


def test_images_of_a_folder_are_sorted_and_others_ignored(tmp_path: Path):
    folder = write_folder(tmp_path / "photos", 3)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    images = open_images(folder)
    assert [entry.name for entry in images.entries] == ["000", "001", "002"]
    assert torch.equal(images[1], torch.from_numpy(colours(1)).permute(2, 0, 1))
    assert torch.equal(images[-1], images[2])
    assert [entry.name for entry in images[::2].entries] == ["000", "002"]
    assert open_images(folder, skip_unreadable=True)[1:].skip_unreadable
    assert len(list(images)) == len(list(reversed(images))) == 3
    for outside in (3, -4):
        with pytest.raises(IndexError, match=f"there is no image {outside}: there are only 3"):
            images[outside]


def test_layouts_are_found(tmp_path: Path):
    kaggle = tmp_path / "kaggle"
    write_folder(kaggle / "photo_jpg", 3)
    write_records(kaggle / "monet_tfrec" / "monet00-2.tfrec", 2)
    mixture = open_domains(kaggle)
    assert (len(mixture.a), len(mixture.b), mixture.test_a) == (3, 2, None)
    write_folder(kaggle / "monet_jpg", 1)
    assert len(open_domains(kaggle).b) == 1  # files before records
    assert len(open_domains(kaggle, paintings=kaggle / "monet_tfrec").b) == 2  # unless told otherwise
    classic = tmp_path / "classic"
    for folder, count in (("trainA", 4), ("trainB", 3), ("testA", 2)):
        write_folder(classic / folder, count)
    domains = open_domains(classic)
    assert (len(domains.a), len(domains.b), len(domains.test_a or ()), domains.test_b) == (4, 3, 2, None)
    assert domains.test_a is not None
    assert domains.photos().entries == domains.test_a.entries + domains.a.entries
    by_hand = open_domains(photos=classic / "testA", paintings=kaggle / "monet_tfrec")
    assert (len(by_hand.a), len(by_hand.b), by_hand.test_a) == (2, 2, None)
    with pytest.raises(DataError, match=r"so .*absent would not be used: leave out one of .*--data None"):
        open_domains(tmp_path / "absent", photos=classic / "testA", paintings=classic / "trainB")


def test_what_is_not_there_is_said_with_what_was_found(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no folder .*absent"):
        open_domains(tmp_path / "absent")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(
        DataError, match=r"photo_jpg or photo_tfrec with monet_jpg.*trainA with trainB.*found pictures/.*--photos"
    ):
        open_domains(tmp_path)
    with pytest.raises(DataError, match=r"pictures has no images: looked in it.*\.jpg.*\.tfrec.*found nothing"):
        open_images(tmp_path / "pictures")
    (tmp_path / "x.txt").touch()
    with pytest.raises(DataError, match=r"x\.txt is a file: give the folder"):
        open_images(tmp_path / "x.txt")
    for i in range(9):
        (tmp_path / "pictures" / f"{i}.txt").touch()
    with pytest.raises(DataError, match=r"found 0\.txt, .* and 3 more"):
        open_images(tmp_path / "pictures")


def test_without_a_folder_the_mount_is_taken_else_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ganparts.data.layouts._MOUNTS", (tmp_path / "mount",))
    assert open_domains().origin.startswith("the sample that ganparts ships: photos from")
    for folder in ("photo_jpg", "monet_jpg"):
        write_folder(tmp_path / "mount" / folder, 2)
    assert open_domains().origin.startswith(f"the competition's: photos from {tmp_path / 'mount' / 'photo_jpg'}")
    assert "ganparts" in open_domains(sample()).origin


def test_unreadable_images_are_skipped_with_a_warning_if_asked(tmp_path: Path):
    folder = write_folder(tmp_path / "photos", 3)
    (folder / "001.png").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"001\.png"):
        open_images(folder)[1]
    images = open_images(folder, skip_unreadable=True)
    with pytest.warns(UserWarning, match=r"skipped: .*001\.png"):
        assert torch.equal(images[1], images[2])
    with pytest.warns(UserWarning, match=r"skipped: .*001\.png"):
        assert [name for name, _ in images.readable()] == ["000", "002"]
    for path in folder.iterdir():
        path.write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImageError, match="none of 3 images can be read"):
            images[0]


def test_the_image_that_is_taken_for_a_skipped_one_is_named(tmp_path: Path):
    (tmp_path / "0.png").write_bytes(b"broken")
    Image.new("RGB", (1, 3000)).save(tmp_path / "1.png")
    images = open_images(tmp_path, skip_unreadable=True)
    pairs = PairDataset(images, images, resize=256, crop=256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (lambda: pairs[0], lambda: pairs[1], lambda: pairs.on_device("cpu")):
            with pytest.raises(DataError, match=r"cannot use the image .*1\.png: an image of 1 x 3000 pixels"):
                read()


@pytest.mark.parametrize("held", [False, True])
def test_an_image_that_is_too_narrow_to_resize_is_named(tmp_path: Path, held: bool):
    folder = write_folder(tmp_path / "photos", 3)
    Image.new("RGB", (1, 3000)).save(folder / "001.png")
    images = open_images(folder)
    pairs = PairDataset(images, images, resize=256, crop=256)
    assert pairs.nbytes == 2 * 3 * 3 * 256 * 256  # a guess, from the others
    with pytest.raises(DataError, match=r"cannot use the image .*001\.png: an image of 1 x 3000 pixels is too narrow"):
        pairs.on_device("cpu") if held else [pairs[position] for position in range(3)]
    decoded = PairDataset(list(images), list(images), resize=256, crop=256)
    with pytest.raises(DataError, match=r"cannot use the image 1: an image of 1 x 3000 pixels is too narrow"):
        [decoded[position] for position in range(3)]


def test_the_sample_is_whole_and_its_sources_are_named():
    domains = open_domains(sample())
    assert [len(part or ()) for part in (domains.a, domains.b, domains.test_a)] == [114, 69, 21]
    rows = (sample() / "SOURCES.tsv").read_text().splitlines()
    assert rows[0].split("\t")[0] == "file"
    listed = {row.split("\t")[0] for row in rows[1:]}
    assert listed == {str(path.relative_to(sample())) for path in sample().glob("*/*.jpg")}
    for images in (domains.a, domains.b, domains.test_a):
        assert images is not None
        assert all(image.shape == (3, 256, 256) for image in images)


# --- pairs


def pairs_of(tmp_path: Path, a: int, b: int, **options) -> PairDataset:
    for name, count, seed in (("a", a, 0), ("b", b, 100)):
        if (tmp_path / name).exists():
            shutil.rmtree(tmp_path / name)
        write_folder(tmp_path / name, count, seed)
    folders = (open_images(tmp_path / name) for name in ("a", "b"))
    return PairDataset(*folders, **{"resize": 8, "crop": 8, "flip": False, **options})


def shown(images: Images, item: torch.Tensor) -> int:
    return next(i for i in range(len(images)) if torch.equal(images[i], item))


def test_an_epoch_shows_each_image_of_the_larger_domain_once(tmp_path: Path):
    for a, b in ((7, 3), (3, 7)):
        dataset = pairs_of(tmp_path, a, b)
        assert len(dataset) == 7
        epochs = []
        for epoch in range(2):
            order = [shown(dataset.a, dataset[epoch * 7 + i][0]) for i in range(7)]
            assert sorted(order) == sorted(i % a for i in range(7))
            epochs.append(order)
        assert epochs[0] != epochs[1]


def test_the_second_of_a_pair_is_drawn_at_random(tmp_path: Path):
    dataset = pairs_of(tmp_path, 4, 4)
    partners: dict[int, set[int]] = {}
    for position in range(200):
        a, b = dataset[position]
        partners.setdefault(shown(dataset.a, a), set()).add(shown(dataset.b, b))
    assert all(found == {0, 1, 2, 3} for found in partners.values())


def test_pairs_depend_on_the_seed_and_nothing_else(tmp_path: Path):
    def batches(seed: int = 0, **options) -> list[Pair]:
        dataset = pairs_of(tmp_path, 5, 4, seed=seed, resize=9, flip=True)
        return list(load_pairs(dataset, batch_size=2, steps=7, **options))

    first = batches()
    assert len(first) == 7
    assert first[0].a.shape == (2, 3, 8, 8)
    assert first[0].a.dtype == torch.float32
    for workers, start in ((0, 0), (1, 0), (2, 0), (0, 4), (2, 5)):
        again = batches(workers=workers, start=start)
        assert len(again) == 7 - start
        for pair, expected in zip(again, first[start:], strict=True):
            assert all(torch.equal(x, y) for x, y in zip(pair, expected, strict=True))
    assert any(not torch.equal(x.a, y.a) for x, y in zip(first, batches(seed=1), strict=True))


def test_loading_is_safe_under_spawn(tmp_path: Path):
    code = (
        "import multiprocessing, sys; from ganparts.data import *\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    domains = open_domains(sample())\n"
        "    dataset = PairDataset(domains.a, domains.b, resize=16, crop=8)\n"
        "    both = [list(load_pairs(dataset, steps=2, workers=w)) for w in (0, 1)]\n"
        "    assert all(x.a.equal(y.a) and x.b.equal(y.b) for x, y in zip(*both, strict=True))\n"
    )
    (tmp_path / "program.py").write_text(code)
    subprocess.run([sys.executable, str(tmp_path / "program.py")], check=True, timeout=200)


def test_loading_draws_nothing_from_torchs_own_generator(tmp_path: Path):
    dataset = pairs_of(tmp_path, 2, 2)
    before = torch.get_rng_state()
    list(load_pairs(dataset, steps=2))
    assert torch.equal(before, torch.get_rng_state())


def test_images_are_resized_cropped_and_flipped(tmp_path: Path):
    dataset = pairs_of(tmp_path, 1, 1, resize=12, crop=8, flip=True)
    whole = resize(dataset.a[0], 12)
    crops = {}
    for y in range(5):
        for x in range(5):
            crop = whole[:, y : y + 8, x : x + 8]
            crops[crop.numpy().tobytes()] = (y, x, False)
            crops[crop.flip(-1).contiguous().numpy().tobytes()] = (y, x, True)
    seen = [crops[dataset[i][0].contiguous().numpy().tobytes()] for i in range(400)]
    assert len(set(seen)) == 50
    assert 150 < sum(flipped for _, _, flipped in seen) < 250
    with pytest.raises(ValueError, match="crop=9 is larger than resize=8"):
        pairs_of(tmp_path, 1, 1, crop=9)


def test_square_images_get_the_windows_that_they_always_got(tmp_path: Path):
    """Seeds of earlier runs keep their meaning."""
    dataset = pairs_of(tmp_path, 3, 4, resize=12, crop=8, flip=True, seed=5)
    for position in range(9):
        epoch, place = divmod(position, 4)
        order = list(range(4))
        random.Random(f"5 epoch {epoch}").shuffle(order)
        draws = random.Random(f"5 {position}")
        chosen = order[place] % 3, draws.randrange(4)
        for image, images, index in zip(dataset[position], (dataset.a, dataset.b), chosen, strict=True):
            top, left = draws.randrange(5), draws.randrange(5)
            expected = resize(images[index], 12)[:, top : top + 8, left : left + 8]
            assert torch.equal(image, expected.flip(-1) if draws.random() < 0.5 else expected)


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({"resize": 12}, (12, 24)),
        ({"resize": 12, "squash": True}, (12, 12)),
        ({"resize": None}, (20, 40)),
        ({"resize": None, "crop": 30}, (30, 60)),  # smaller than the crop
    ],
)
def test_the_aspect_is_kept_unless_told_otherwise(tmp_path: Path, options, whole: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    images = open_images(tmp_path)
    dataset = PairDataset(images, images, **{"crop": 8, "flip": False, **options})
    crop = dataset.framing.crop
    fitted = resize(images[0], whole)
    windows = {
        fitted[:, y : y + crop, x : x + crop].numpy().tobytes(): (y, x)
        for y in range(whole[0] - crop + 1)
        for x in range(whole[1] - crop + 1)
    }
    seen = {windows[dataset[i][0].numpy().tobytes()] for i in range(300)}
    assert {y for y, _ in seen} == set(range(whole[0] - crop + 1))
    assert len({x for _, x in seen}) >= 0.9 * (whole[1] - crop + 1)


def test_sizes_that_make_no_sense_are_refused(tmp_path: Path):
    for options, said in (
        ({"resize": None, "squash": True}, "squash=True needs a size"),
        ({"crop": 0}, "crop=0: it is at least 1"),
        ({"crop": 300}, "crop=300 is larger than resize=286"),
    ):
        with pytest.raises(ValueError, match=said):
            PairDataset([], [], **options)
    Image.new("RGB", (30_000, 1)).save(tmp_path / "line.png")
    images = open_images(tmp_path)
    with pytest.raises(DataError, match=r"an image of 30000 x 1 pixels is too narrow: .*squash=True"):
        PairDataset(images, images)[0]
    assert PairDataset(images, images, squash=True)[0][0].shape == (3, 256, 256)


def test_a_square_is_the_middle_of_an_image_unless_it_is_to_be_squashed():
    image = torch.zeros(3, 10, 30, dtype=torch.uint8)
    image[:, :, 10:20] = 200
    assert torch.equal(resize_square(image, 10), torch.full((3, 10, 10), 200, dtype=torch.uint8))
    assert torch.equal(resize_square(image, 12, squash=True), resize(image, 12))
    assert resize_square(image[:, :, :10], 10).shape == (3, 10, 10)


def test_batches_without_end(tmp_path: Path):
    dataset = pairs_of(tmp_path, 2, 3)
    expected = list(load_pairs(dataset, batch_size=2, start=3, steps=9))
    for workers in (0, 1):
        endless = load_pairs(dataset, batch_size=2, start=3, steps=None, workers=workers)
        for batch in expected:
            following = next(endless)
            assert torch.equal(following.a, batch.a)
            assert torch.equal(following.b, batch.b)
        endless.close()


def test_a_data_set_of_ones_own_is_loaded():
    class Own:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
            image = torch.full((3, 2, 2), position, dtype=torch.uint8)
            return image, image

    (batch,) = load_pairs(Own(), steps=3, start=2, batch_size=2)
    assert torch.equal(batch.a[:, 0, 0, 0], to_unit_range(torch.tensor([4, 5], dtype=torch.uint8)))


def test_a_digest_tells_other_images_apart_and_nothing_else(tmp_path: Path):
    for name in "AB":
        write_folder(tmp_path / "one" / f"train{name}", 3)
    write_folder(tmp_path / "one" / "testA", 2)
    write_records(tmp_path / "records" / "x.tfrec", 3)

    def digest(root: Path = tmp_path / "one") -> str:
        return open_domains(root).digest()

    first = digest()
    assert len(first) == 64
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "testA")
    assert digest(tmp_path / "two") == first
    seen = {first, open_domains(tmp_path / "one", photos=tmp_path / "records").digest()}
    photo = tmp_path / "one" / "trainA" / "001.png"
    photo.write_bytes(photo.read_bytes() + b"x")
    seen.add(digest())
    photo.rename(photo.with_stem("004"))
    seen.add(digest())
    domains = open_domains(tmp_path / "one")
    photo.with_stem("004").unlink()
    seen |= {digest(), domains.digest()}
    (tmp_path / "one" / "trainB").rename(tmp_path / "x")
    (tmp_path / "one" / "trainA").rename(tmp_path / "one" / "trainB")
    (tmp_path / "x").rename(tmp_path / "one" / "trainA")
    seen.add(digest())
    assert len(seen) == 7


def test_resizing_is_pillows_bicubic_within_rounding():
    image = Image.open(sample() / "testA" / "pontduGard_0.jpg").convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    for size in (286, 143, 128):
        expected = torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.BICUBIC))).permute(2, 0, 1)
        assert (resize(pixels, size).int() - expected.int()).abs().max() <= 1
    assert resize(pixels, 256) is pixels


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_ends_loading_with_its_own_sentence(tmp_path: Path, workers: int):
    dataset = pairs_of(tmp_path, 3, 2)
    (tmp_path / "a" / "002.png").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match=r"002\.png"):
        [dataset[position] for position in range(3)]
    with pytest.raises(UnreadableImageError) as caught:
        list(load_pairs(dataset, steps=3, workers=workers))
    assert str(caught.value).startswith(f"cannot read the image {tmp_path / 'a' / '002.png'}: it is not an image")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"resize": 24, "squash": True}, torch.Tensor),
        ({"resize": 24}, list),
        ({"resize": None}, list),
    ],
)
def test_pairs_from_images_held_on_the_device_are_the_same(tmp_path: Path, workers: int, options, kind: type):
    for number in range(5):
        Image.effect_noise((40 + 8 * number, 60), 90).convert("RGB").save(tmp_path / f"{number}.png")
    images = open_images(tmp_path)
    dataset = PairDataset(images, images[:3], seed=3, crop=16, **options)
    expected = list(load_pairs(dataset, batch_size=2, start=1, steps=9))
    held = dataset.on_device("cpu", workers=workers)
    assert isinstance(held.a, kind)
    assert held.a[0].dtype == torch.uint8
    assert held.nbytes == dataset.nbytes == sum(image.numel() for images in (held.a, held.b) for image in images)
    assert held.is_held
    assert not dataset.is_held
    for path in tmp_path.iterdir():
        path.unlink()  # no file is needed any more
    for pair, other in zip(expected, load_pairs(held, batch_size=2, start=1, steps=9, workers=2), strict=True):
        assert torch.equal(pair.a, other.a)
        assert torch.equal(pair.b, other.b)


def test_an_estimate_of_the_bytes_reads_few_images_and_no_broken_ones(tmp_path: Path, monkeypatch):
    for number in range(200):
        (tmp_path / f"{number:03}.png").write_bytes(png(Image.new("L", (10, 5 + 5 * (number % 2)))))
    (tmp_path / "000.png").write_bytes(b"broken")
    read, real = [], ImageEntry.dimensions
    monkeypatch.setattr(ImageEntry, "dimensions", lambda entry: read.append(entry) or real(entry))
    images = open_images(tmp_path)
    nbytes = PairDataset(images, images[:0], resize=20, crop=20).nbytes
    assert len(read) <= 128
    assert nbytes == pytest.approx(200 * 3 * 20 * 30, rel=0.05)  # half are 20 x 20, half 40 x 20


def test_dimensions_are_those_of_the_decoded_image(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("plain", {}), ("turned", {"exif": exif})):
        Image.new("RGB", (7, 4)).save(tmp_path / f"{name}.png", **options)
        entry = ImageEntry(name, tmp_path / f"{name}.png")
        assert entry.dimensions() == tuple(entry.load().shape[1:])
    (tmp_path / "plain.png").write_bytes(b"no")
    with pytest.raises(UnreadableImageError, match=r"plain\.png"):
        ImageEntry("plain", tmp_path / "plain.png").dimensions()


def test_an_unreadable_image_is_named_when_images_are_to_be_held(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no")
    Image.new("RGB", (16, 16)).save(tmp_path / "good.png")
    dataset = PairDataset(open_images(tmp_path), open_images(tmp_path), resize=16, crop=16)
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        dataset.on_device("cpu", workers=1)


@given(st.integers(0, 500), st.integers(1, 100))
def test_few_of_many_are_as_many_as_asked_for(length: int, count: int):
    chosen = evenly(length, count)
    assert len(set(chosen)) == len(chosen) == min(length, count)
    assert list(chosen) == sorted(chosen)
    assert all(0 <= number < length for number in chosen)
    gaps = {later - sooner for sooner, later in itertools.pairwise(chosen)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
