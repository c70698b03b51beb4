"""Images in Parquet files, and in the Arrow files that the library ``datasets`` saves.

A column holds encoded images as the Hub stores them, a struct with ``bytes`` and perhaps ``path``, or plain bytes. A
row group, or a record batch, is a block: its place is in the file's metadata, so any block is read by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganparts.data.entries import printable_stem
from ganparts.data.errors import DataError, UnreadableImageError
from ganparts.data.files import File
from ganparts.data.images import ImageEntry
from ganparts.data.shards import Encoded
from ganparts.optional import require

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ArrowShard",
    "ColumnError",
    "ParquetShard",
    "columns_of",
    "image_columns",
    "open_arrow",
    "open_parquet",
    "pick_column",
    "require_stream",
]

_NAMES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "bytes")  # of columns of plain bytes that are taken


@dataclass(frozen=True)
class ParquetShard:
    """A Parquet file; a block is a row group.

    Args:
        file: where it is.
        column: that holds the images.
        counts: rows of each row group.
    """

    file: File
    column: str
    counts: Sequence[int]

    def read(self, block: int) -> list[Encoded]:
        from pyarrow.parquet import ParquetFile

        with self.file.open() as opened, ParquetFile(opened, pre_buffer=False) as parquet:
            table = parquet.read_row_group(block, columns=[self.column], use_threads=False)
        return _encoded(table.column(0), self.file.path)


@dataclass(frozen=True)
class ArrowShard:
    """An Arrow file in the streaming format, on this machine; a block is a record batch.

    Args:
        file: where it is.
        column: that holds the images.
        counts: rows of each record batch.
        offsets: where each record batch begins in the file.
    """

    file: File
    column: str
    counts: Sequence[int]
    offsets: Sequence[int]

    def read(self, block: int) -> list[Encoded]:
        import pyarrow as pa

        with pa.memory_map(self.file.path) as opened:
            schema = pa.ipc.read_schema(opened)
            opened.seek(self.offsets[block])
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(opened), schema)
            return _encoded(batch.column(self.column), self.file.path)


def _bytes_of_file(path: Path) -> bytes | None:
    """What a row's file holds; None if that cannot be read, as for a row without bytes."""
    try:
        return ImageEntry(path.stem, path).read()
    except UnreadableImageError:
        return None


def _encoded(column: Any, path: str) -> list[Encoded]:
    """The images of an Arrow column."""
    images = []
    for value in column.to_pylist():
        value = value if isinstance(value, dict) else {"bytes": value}
        data, where = value.get("bytes"), value.get("path") or ""
        if data is None and where and "://" not in path:  # of a data set that was saved without its images' bytes
            data = _bytes_of_file(Path(path).parent / where)
        images.append(Encoded(printable_stem(where), data))
    return images


def open_parquet(file: File, column: str | None) -> ParquetShard:
    """Open a Parquet file; None for its only column of images, or the one called ``image``.

    Raises:
        DataError: it is damaged, or has no such column.
        UnavailableError: pyarrow is not installed.
    """
    require_stream("pyarrow", "Parquet files")
    from pyarrow.parquet import ParquetFile

    try:
        with file.open() as opened, ParquetFile(opened, pre_buffer=False) as parquet:
            metadata, schema = parquet.metadata, parquet.schema_arrow
            counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from None
    return ParquetShard(file, pick_column(schema, column, file.path), counts)


def open_arrow(file: File, column: str | None) -> ArrowShard:
    """Open an Arrow file that the library ``datasets`` saved, as :func:`open_parquet` does."""
    require_stream("pyarrow", "Arrow files")
    import pyarrow as pa

    counts: list[int] = []
    offsets: list[int] = []
    try:
        with pa.memory_map(file.path) as opened:
            schema = pa.ipc.read_schema(opened)
            while (offset := opened.tell()) < file.size:
                try:
                    message = pa.ipc.read_message(opened)
                except EOFError:
                    break
                if message.type == "record batch":
                    counts.append(pa.ipc.read_record_batch(message, schema).num_rows)
                    offsets.append(offset)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(file, error) from None
    return ArrowShard(file, pick_column(schema, column, file.path), counts, offsets)


def columns_of(file: File) -> list[str]:
    """The columns of images of a Parquet or Arrow file; a tar file has none.

    Raises:
        DataError: it is damaged.
        UnavailableError: pyarrow is not installed.
    """
    kind = file.path.lower().rpartition(".")[2]
    if kind not in ("parquet", "arrow"):
        return []
    require_stream("pyarrow", "Parquet files")
    import pyarrow as pa
    from pyarrow.parquet import read_schema

    try:
        with file.open() as opened:
            return image_columns(read_schema(opened) if kind == "parquet" else pa.ipc.read_schema(opened))
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from None


def _damaged(file: File, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    return DataError(
        f"cannot read the shard {file.path}: {reason}. Fetch it again, or leave such shards out "
        "(skip_unreadable=True; --skip-unreadable)"
    )


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that hold images, by their types, else by their names."""
    import pyarrow as pa

    def holds(kind: Any) -> bool:
        return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0

    structs = [field.name for field in schema if holds(field.type)]
    return structs or [field.name for field in schema if field.name in _NAMES and _is_binary(field.type)]


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def pick_column(schema: pa.Schema, column: str | None, path: str) -> str:
    """The name of the column of images.

    Raises:
        ColumnError: there is no such column, or not one alone.
    """
    found, names = image_columns(schema), ", ".join(schema.names)
    if column is not None:
        if column not in schema.names:
            raise ColumnError(f"{path} has no column {column!r}: its columns are {names}")
        if column not in found and not _is_binary(schema.field(column).type):
            kind = schema.field(column).type
            raise ColumnError(
                f"the column {column!r} of {path} holds {kind}, no encoded images: take another of {names}"
            )
        return column
    if "image" in found or len(found) == 1:
        return "image" if "image" in found else found[0]
    if found:
        raise ColumnError(
            f"{path} has several columns of images ({', '.join(found)}): name one, as in (column={found[0]})"
        )
    raise ColumnError(
        f"{path} has no column of encoded images, only {names}: name one that holds bytes, as in (column=NAME)"
    )


class ColumnError(DataError):
    """A column that is missing or not known; all shards of a set have the same columns, so none is left out for it."""


def require_stream(module: str, what: str) -> None:
    """Check that an optional package is there.

    Raises:
        UnavailableError: it is not; the text says how to get it.
    """
    require(module, module, "stream", what=f"reading {what}")
