"""Images in tar files, as WebDataset's shards: every member whose name ends as an image's does.

The standard library reads them. It tells where each member begins, so any block of members is read by itself, and a run
goes on where it stopped without reading what came before. The library ``webdataset`` reads shards from their beginning.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ganparts.data.entries import printable_stem
from ganparts.data.errors import DataError
from ganparts.data.files import File
from ganparts.data.images import IMAGE_SUFFIXES
from ganparts.data.members import check_tar_is_whole
from ganparts.data.shards import Encoded

__all__ = ["TarShard", "open_tar"]

_BLOCK = 128  # images
_BLOCK_BYTES = 2**25


@dataclass(frozen=True)
class TarShard:
    """A tar file that is not compressed; a block is some members that follow each other.

    Args:
        file: where it is.
        counts: images in each block.
        offsets: where each block begins in the file, and where the last one ends.
    """

    file: File
    counts: Sequence[int]
    offsets: Sequence[int]

    def read(self, block: int) -> list[Encoded]:
        first, after = self.offsets[block : block + 2]
        with self.file.open() as opened:
            opened.seek(first)
            data = opened.read(after - first)
        images = []
        try:
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
                for member in archive:
                    if _is_image(member):
                        content = data[member.offset_data : member.offset_data + member.size]
                        images.append(Encoded(printable_stem(member.name), content))
        except tarfile.TarError as error:
            raise ValueError(f"the tar file is damaged: {error}") from None
        return images


def _is_image(member: tarfile.TarInfo) -> bool:
    hidden = PurePosixPath(member.name).name.startswith(".")
    return member.isreg() and not hidden and member.name.lower().endswith(IMAGE_SUFFIXES)


def open_tar(file: File) -> TarShard:
    """Find the images of a tar file. All headers are read, and no image.

    Raises:
        DataError: it is damaged, or compressed.
    """
    counts: list[int] = []
    offsets = [0]
    images = 0
    try:
        with file.open() as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  else it keeps them
                if not _is_image(member):
                    continue
                if images == _BLOCK or (images and member.offset - offsets[-1] > _BLOCK_BYTES):
                    counts.append(images)
                    offsets.append(member.offset)
                    images = 0
                images += 1
            check_tar_is_whole(archive)
            end = archive.offset
    except (OSError, tarfile.TarError, EOFError) as error:
        with_gzip = file.path.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst"))
        reason = "it is compressed, so no place in it can be found: decompress it first" if with_gzip else str(error)
        raise DataError(
            f"cannot read the shard {file.path}: {reason.rstrip('.')}. Fetch it again, or leave such shards out "
            "(skip_unreadable=True; --skip-unreadable)"
        ) from None
    return TarShard(file, [*counts, images], [*offsets, end])
