"""A reader of TFRecord files of ``tf.train.Example``, without TensorFlow, that verifies every checksum.

A record is its length (8 bytes, little-endian), the length's checksum, the data, the data's checksum; checksums are
CRC-32C, rotated and shifted by a constant. The data is a protocol buffer: a map from feature names to lists.
"""

from __future__ import annotations

import stat
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from google_crc32c import value as crc32c

MAX_BYTES = 2**31 - 1  # of a protocol buffer

__all__ = ["BytesFeature", "TFRecordError", "masked_crc", "read_examples", "read_records"]


class TFRecordError(ValueError):
    """A damaged or foreign file; the text names the file, the record and the reason."""


class BytesFeature(NamedTuple):
    """The first value of a bytes feature, and where in the file it begins."""

    value: bytes
    offset: int


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord files store for ``data``."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path, *, skip_damaged: bool = False) -> Iterator[tuple[int, int, bytes]]:
    """The records of a file: (number from 0, offset of the data, data).

    Args:
        path: an uncompressed TFRecord file.
        skip_damaged: warn of damaged records and go on. After a damaged length no further record can be found.

    Raises:
        TFRecordError: a checksum or a length is wrong.
        OSError: the file cannot be opened or read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would keep its reader waiting
        raise TFRecordError(f"{path} is not a file but a folder, a pipe or a device")
    size = status.st_size
    number, position = 0, 0
    with path.open("rb") as file:
        while position < size:
            header = file.read(12)
            problem, fatal, data = None, True, b""
            if len(header) < 12:
                problem = "the file ends inside the record's header"
            elif masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                problem = "the checksum of its length is wrong, or this is not a TFRecord file"
                if position == 0 and header.startswith(b"\x1f\x8b"):
                    problem = "it is compressed with gzip: decompress it first"
            else:
                (length,) = struct.unpack("<Q", header[:8])
                if position + 16 + length > size:
                    problem = f"it claims {length} bytes, but the file ends before"
                elif length > MAX_BYTES:
                    problem = f"it claims {length:,} bytes, and a tf.train.Example has at most {MAX_BYTES:,}"
                else:
                    data, checksum = file.read(length), file.read(4)
                    fatal = False
                    if masked_crc(data) != struct.unpack("<I", checksum)[0]:
                        problem = "the checksum of its data is wrong"
            if problem is None:
                yield number, position + 12, data
            elif skip_damaged:
                warnings.warn(f"skipped: {path}, record {number} (counted from 0): {problem}", stacklevel=2)
            else:
                raise TFRecordError(f"{path}, record {number} (counted from 0): {problem}")
            if fatal and problem is not None:
                return
            position += 16 + len(data)
            number += 1


def read_examples(path: Path, *, skip_damaged: bool = False) -> Iterator[tuple[int, dict[str, BytesFeature]]]:
    """The bytes features of every record: (number from 0, features by name). Features of other kinds are left out.

    Args:
        path: an uncompressed TFRecord file of ``tf.train.Example``.
        skip_damaged: warn of damaged records and go on.

    Raises:
        TFRecordError: a record is damaged, or not a ``tf.train.Example``.
        OSError: the file cannot be opened or read.
    """
    for number, offset, data in read_records(path, skip_damaged=skip_damaged):
        try:
            yield number, _parse_example(data, offset)
        except (IndexError, ValueError) as error:
            message = f"{path}, record {number} (counted from 0): it is not a tf.train.Example ({error})"
            if not skip_damaged:
                raise TFRecordError(message) from None
            warnings.warn(f"skipped: {message}", stacklevel=2)


def _parse_example(data: bytes, offset: int) -> dict[str, BytesFeature]:
    features: dict[str, BytesFeature] = {}
    # Example.features (1) -> Features.feature (1), a map entry: key (1), value (2) -> Feature.bytes_list (1)
    # -> BytesList.value (1)
    for start, stop in _fields(data, 0, len(data), 1):
        for entry in _fields(data, start, stop, 1):
            names = [data[a:b].decode() for a, b in _fields(data, *entry, 1)]
            for feature in _fields(data, *entry, 2):
                for bytes_list in _fields(data, *feature, 1):
                    for a, b in _fields(data, *bytes_list, 1):
                        features.setdefault(names[0], BytesFeature(data[a:b], offset + a))
    return features


def _fields(data: bytes, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each length-delimited field with number ``wanted`` in the message ``data[start:stop]``."""
    position = start
    while position < stop:
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _varint(data, position)
            if position + length > stop:
                raise ValueError("a field is longer than its message")
            if key >> 3 == wanted:
                yield position, position + length
            position += length
        else:
            raise ValueError(f"wire type {kind} is not known")
    if position != stop:
        raise ValueError("a field is longer than its message")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer of a protocol buffer, and the position after it."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("an integer has more than 10 bytes")
