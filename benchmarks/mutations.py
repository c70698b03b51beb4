"""Files that ganparts reads, damaged: real ones, made here from the sample, with one or several mistakes in each.

Every function that damages takes a ``random.Random`` and nothing else that varies, so that a seed gives the file again.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import nn

from ganparts import DISCRIMINATORS, GENERATORS, build_cyclegan, make_optimizers
from ganparts.data import sample
from ganparts.data.tfrecord import masked_crc
from ganparts.generators import ResNetGenerator
from ganparts.interchange import describe_network, save_pretrained
from ganparts.training import save_checkpoint

__all__ = ["OWNED", "WHOLE", "WRITERS", "Evil", "example", "record", "run_of_a_checkpoint", "zip_entries", "zip_of"]

OWNED = "owned"  # what a pickle that runs code leaves in the folder that it was written to
INTEGERS = (0, 1, 127, 128, 255, 256, 32767, 65535, 65536, 100_000, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
NETWORKS = {"generator": GENERATORS, "discriminator": DISCRIMINATORS}


class Evil:
    """Unpickled without care, it makes a folder."""

    def __init__(self, folder: Path, how: int = 0):
        self.folder, self.how = folder, how

    def __reduce__(self) -> Any:
        place = str(self.folder / OWNED)
        ways = ((os.mkdir, (place,)), (os.system, (f"mkdir {place}",)), (eval, (f"__import__('os').mkdir({place!r})",)))
        return ways[self.how % len(ways)]


# --- bytes


def damaged(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """``data`` with one to four mistakes, half of them among its first 128 bytes."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(min(128, len(data)) if rng.random() < 0.5 else len(data)) if data else 0
        stop = min(len(data), start + rng.choice((1, 2, 4, 8, 64, 1024)))
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:start] + rng.randbytes(stop - start) + data[stop:]
        elif kind == 1:
            data = data[:start]
        elif kind == 2:
            data = data[:start] + data[stop:]
        elif kind == 3:
            data = data[:start] + rng.randbytes(rng.randint(1, 64)) + data[start:]
        elif kind == 4:
            data = data[:stop] + data[start:stop] * rng.randint(1, 9) + data[stop:]
        elif kind == 5:
            data = data[:start] + other[rng.randrange(len(other) or 1) :][:4096] + data[stop:]
        elif kind == 6:
            size = rng.choice((1, 2, 4, 8))
            number = (rng.choice(INTEGERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
            data = data[:start] + number + data[start + size :]
        elif data:
            data = data[:start] + bytes([data[start] ^ 1 << rng.randrange(8)]) + data[start + 1 :]
    return data


# --- values


def bomb() -> list[Any]:
    """A list of two lists that are one, forty deep: small in a pickle, 2**40 for whoever walks it."""
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested, nested]
    return nested


@cache
def _odd_values() -> tuple[Any, ...]:
    return (
        *(
            None,
            True,
            False,
            0,
            -1,
            1,
            3,
            64.0,
            1e308,
            float("inf"),
            float("nan"),
            10**6,
            1e6,
            10**9,
            10**18,
            -(10**30),
        ),
        *("", "64", "none", "\u202e\x00\n\ud7ff💥", "x" * 100_000, [], {}, [[]], ["instance"], {"a": {"b": [1]}}),
    )


@cache
def _odd_tensors() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            *(torch.zeros(()), torch.zeros(0), torch.ones(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.bool)),
            *(torch.ones(2, dtype=torch.complex64), torch.ones(4).to_sparse(), torch.zeros(1).expand(10**5, 10**5)),
            *(torch.full((4, 3, 7, 7), float("nan")), torch.zeros(1).expand(10**4, 10**4, 4, 4)),
            *(torch.zeros(1 << 30, device="meta"), torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)),
            *(nn.Parameter(torch.ones(2)), bomb(), torch.Size([3]), torch.device("cpu"), torch.float16),
        )


def swapped(rng: random.Random, tree: Any, odd: tuple[Any, ...]) -> Any:
    """A copy of a tree of dictionaries and lists, one to three of whose values, names or items are others."""
    for _ in range(rng.randint(1, 3)):
        tree = _swapped_once(rng, tree, odd)
    return tree


def _swapped_once(rng: random.Random, tree: Any, odd: tuple[Any, ...]) -> Any:
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.08:
        return rng.choice(odd)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, copy = rng.choice(keys), tree.copy()
    kind = rng.randrange(10)
    if kind == 0:
        del copy[key]
    elif kind == 1 and isinstance(copy, dict):
        copy[rng.choice(("", "name", "self", "x" * 9000, "model." * 5000, "ü\n", 3, f"{key}.0"))] = copy.pop(key)
    elif kind == 2 and isinstance(copy, dict):
        copy[rng.choice(("width", "name", "self", "model.0.weight", "layers", "a" * 9000))] = rng.choice(odd)
    else:
        copy[key] = _swapped_once(rng, copy[key], odd)
    return copy


# --- images


@cache
def images() -> tuple[bytes, ...]:
    """A crop of the sample in every format and mode that folders may hold."""
    with Image.open(sample() / "testA" / "pontduGard_0.jpg") as whole:
        image = whole.convert("RGB").crop((0, 0, 48, 40))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a bridge"
    grey16 = image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (image, "JPEG", {"exif": exif}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "PNG", {"exif": exif}),
        (image.convert("RGBA"), "PNG", {}),
        (image.convert("P"), "PNG", {"transparency": 0}),
        (grey16, "PNG", {}),
        (image, "WEBP", {"lossless": True}),
        (image.convert("RGBA"), "WEBP", {"exif": exif}),
        (image, "BMP", {}),
        (image.convert("P"), "BMP", {}),
        (image, "TIFF", {"exif": exif}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image, "TIFF", {"compression": "jpeg"}),
        (image.convert("1"), "TIFF", {"compression": "group4"}),
        (grey16, "TIFF", {"compression": "tiff_deflate"}),
        (image.convert("LAB"), "TIFF", {}),
        *((image, kind, {}) for kind in ("GIF", "PPM", "TGA", "EPS", "ICO", "PCX", "DDS", "SGI")),
    ]
    encoded = []
    for picture, kind, options in ways:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        encoded.append(buffer.getvalue())
    return tuple(encoded)


def png_checksummed(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums, so that a decoder goes on to what is in them."""
    out, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        body = data[position + 4 : position + 8 + length]
        out += data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return out


def write_images(folder: Path) -> None:
    for number, data in enumerate(images()):
        if not data.startswith(b"%!PS"):  # a program, which is not run
            (folder / f"{number:02}.png").write_bytes(data)


def write_image(rng: random.Random, folder: Path) -> None:
    data = damaged(rng, rng.choice(images()), rng.choice(images()))
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        data = png_checksummed(data)
    (folder / f"x{rng.choice(('.jpg', '.png', '.webp', '.bmp', '.tif'))}").write_bytes(data)


# --- TFRecords


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def example(**features: bytes) -> bytes:
    """A ``tf.train.Example`` of bytes features."""
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _field(1, _field(1, value)))) for name, value in features.items()
    )
    return _field(1, b"".join(entries))


def record(data: bytes, length: int | None = None) -> bytes:
    """A record with right checksums, which claims ``length`` bytes."""
    header = struct.pack("<Q", len(data) if length is None else length)
    return header + struct.pack("<I", masked_crc(header)) + data + struct.pack("<I", masked_crc(data))


def write_records(folder: Path) -> None:
    records = (record(example(image_name=b"a/x.jpg", image=data)) for data in images() if not data.startswith(b"%!PS"))
    (folder / "x.tfrec").write_bytes(b"".join(records))


def write_tfrecord(rng: random.Random, folder: Path) -> None:
    payloads = [example(image_name=f"{i}.jpg".encode(), image=rng.choice(images())) for i in range(3)]
    how, place = rng.randrange(3), rng.randrange(3)
    if how == 0:  # what only a right checksum lets through
        payloads[place] = damaged(rng, payloads[place], payloads[0])
    records = list(map(record, payloads))
    if how == 1:
        records[place] = record(payloads[place], rng.choice(INTEGERS))
    data = b"".join(records)
    (folder / "x.tfrec").write_bytes(damaged(rng, data, data) if how == 2 else data)


# --- checkpoints


def run_of_a_checkpoint() -> dict[str, Any]:
    """The smallest run."""
    model = build_cyclegan(generator=partial(ResNetGenerator, width=2, blocks=1), discriminator="pixel")
    return {"model": model, "optimizers": make_optimizers(model)}


@cache
def _checkpoint() -> bytes:
    run = run_of_a_checkpoint()
    for optimizer in run["optimizers"].values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
    run["optimizers"].step()
    with TemporaryDirectory() as name:
        folder = Path(name)
        config = {"options": {"data": None, "width": 2}, "settled": {"steps": 3}, "parts": {"generator_ab": "mine"}}
        save_checkpoint(folder / "c.pt", step=3, config=config, **run)
        return (folder / "c.pt").read_bytes()


def zip_entries(data: bytes) -> dict[str, bytes]:
    """What an archive holds, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zip_of(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these entries."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # a name that comes twice is meant to
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def _saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, buffer, **options)
    return buffer.getvalue()


def _rezipped(rng: random.Random, data: bytes) -> bytes:
    entries = list(zip_entries(data).items())
    pickled = next(i for i, (name, _) in enumerate(entries) if name.endswith("data.pkl"))
    place = pickled if rng.random() < 0.6 else rng.randrange(len(entries))
    name, content = entries[place]
    how = rng.randrange(6)
    if how <= 2:
        entries[place] = (name, damaged(rng, content, content))
    elif how == 3:
        entries[place] = (name, bytes(rng.choice((0, 1, 1 << 26))))
    elif how == 4:
        del entries[place]
    else:
        entries.insert(rng.randrange(len(entries)), entries[place])
    return zip_of(entries, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _foreign(rng: random.Random, folder: Path, data: bytes) -> bytes:
    """A file of torch.save, damaged in one of the ways that such files can be."""
    how = rng.randrange(5)
    if how == 0:
        return damaged(rng, data, data)
    if how <= 2:
        return _rezipped(rng, data)
    tree = torch.load(io.BytesIO(data), weights_only=True)
    if how == 3:
        return _saved(
            swapped(rng, tree, _odd_values() + _odd_tensors()), _use_new_zipfile_serialization=rng.random() < 0.8
        )
    evil = swapped(rng, tree, (Evil(folder, rng.randrange(3)),))
    return pickle.dumps(evil) if rng.random() < 0.3 else _saved(evil)


def write_checkpoint(rng: random.Random, folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(_foreign(rng, folder, _checkpoint()))


# --- pretrained folders and published weights


@cache
def _pretrained(kind: str, name: str) -> tuple[str, bytes]:
    network = NETWORKS[kind].create(name, width=2)
    with TemporaryDirectory() as folder:
        save_pretrained(network, folder)
        return describe_network(network), (Path(folder) / "model.safetensors").read_bytes()


def _any_pretrained(rng: random.Random) -> tuple[str, bytes]:
    return _pretrained(*rng.choice([(kind, name) for kind, table in NETWORKS.items() for name in table]))


def write_config(rng: random.Random, folder: Path) -> None:
    config, weights = _any_pretrained(rng)
    write_pretrained(folder, config, weights)
    how = rng.randrange(10)
    if how <= 1:
        text = damaged(rng, config.encode(), config.encode())
    elif how == 2:
        deep = rng.choice(("[", '{"a":', '{"kind":')) * rng.choice((50, 2000, 200_000))
        text = config.replace("2", rng.choice((deep, "9" * 6000, "1e999", "-0", "NaN")), 1).encode()
    else:
        tree = swapped(rng, json.loads(config), _odd_values())
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    (folder / "config.json").write_bytes(text)


def write_pretrained(folder: Path, config: str = "", weights: bytes = b"") -> None:
    if not config:
        config, weights = _pretrained("generator", "resnet6")
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(weights)


def safetensors_of(header: Any, data: bytes, length: int | None = None) -> bytes:
    """A file of this header, an object or its text, which claims ``length`` bytes of header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_weights(rng: random.Random, folder: Path) -> None:
    if rng.random() < 0.5:
        return _write_published(rng, folder)
    config, weights = _any_pretrained(rng)
    (size,) = struct.unpack("<Q", weights[:8])
    header, data = json.loads(weights[8 : 8 + size]), weights[8 + size :]
    how = rng.randrange(4)
    if how == 0:
        weights = damaged(rng, weights, weights)
    elif how == 1:
        weights = safetensors_of(header, data, rng.choice(INTEGERS))
    elif how == 2:
        weights = safetensors_of(b"[" * rng.choice((9, 10**5)) + b'{"a":' * 10**4, data)
    else:
        dtypes = ("F32", "F16", "I64", "BF16", "F8_E4M3", "F4", "C64", "BOOL", [0, 2**62], [2**62, 4])
        weights = safetensors_of(swapped(rng, header, _odd_values() + dtypes), data)
    write_pretrained(folder, config, weights)


@cache
def _published() -> tuple[bytes, ...]:
    names = (
        ("generator", "resnet6"),
        ("generator", "unet128"),
        ("discriminator", "patchgan"),
        ("discriminator", "pixel"),
    )
    return tuple(
        _saved(NETWORKS[kind].create(name, width=2, **({"norm": norm} if norm else {})).state_dict())
        for kind, name in names
        for norm in (None, "batch")
    )


def _write_published(rng: random.Random, folder: Path) -> None:
    (folder / "x.pth").write_bytes(_foreign(rng, folder, rng.choice(_published())))


WHOLE: dict[str, Callable[[Path], object]] = {
    "image": write_images,
    "tfrecord": write_records,
    "checkpoint": lambda folder: (folder / "checkpoint.pt").write_bytes(_checkpoint()),
    "config": write_pretrained,
    "weights": lambda folder: (folder / "x.pth").write_bytes(_published()[0]),
}
"""What writes files without a mistake."""

WRITERS: dict[str, Callable[[random.Random, Path], None]] = {
    "image": write_image,
    "tfrecord": write_tfrecord,
    "checkpoint": write_checkpoint,
    "config": write_config,
    "weights": write_weights,
}
"""What writes a file with mistakes."""
