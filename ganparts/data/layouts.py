"""Find the images of the two domains: in the Kaggle competition's layout, CycleGAN's, one set of shards, or two."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ganparts.data.address import parse_address
from ganparts.data.entries import Entries, Entry, few, joined
from ganparts.data.errors import DataError
from ganparts.data.images import Images
from ganparts.data.shard_sets import ShardSet, shards_of_data
from ganparts.data.sources import existing_folder, listing, open_images

__all__ = ["Domains", "digest", "open_domains", "sample"]

_MOUNTS = (Path("/kaggle/input/gan-getting-started"), Path("/kaggle/input/competitions/gan-getting-started"))
# folders of photos, paintings, test photos and test paintings; the first of each that exists is taken
_LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "the Kaggle competition's": (("photo_jpg", "photo_tfrec"), ("monet_jpg", "monet_tfrec"), (), ()),
    "CycleGAN's": (("trainA",), ("trainB",), ("testA",), ("testB",)),
}


@dataclass(frozen=True)
class Domains:
    """The images of both domains.

    Args:
        a: photos to train on.
        b: paintings to train on.
        test_a: photos to keep out of training, if there are any.
        test_b: paintings to keep out of training, if there are any.
        origin: says where the images come from.
    """

    a: Images
    b: Images
    test_a: Images | None
    test_b: Images | None
    origin: str

    def photos(self) -> Images:
        """All photos: those kept out of training, then the others."""
        held_out = [] if self.test_a is None else self.test_a.entries
        return Images(joined(held_out, self.a.entries), skip_unreadable=self.a.skip_unreadable)

    def summary(self) -> str:
        """Numbers of images and names of their folders, without paths: for a published model card."""
        parts = ((self.a, "photos"), (self.b, "paintings"))
        return ", ".join(f"{len(images)} {what} ({images.entries[0].place})" for images, what in parts)

    def reference(self, limit: int = 50_000) -> Images:
        """The paintings to score against: all, or of more than ``limit`` that many, always the same."""
        entries = self.b.entries if len(self.b) <= limit else few(self.b.entries, limit)
        return Images(entries, skip_unreadable=self.b.skip_unreadable)

    def digest(self) -> str:
        """A hash of the training images' names and sizes in bytes, in order: 64 hexadecimal digits.

        It stays the same when the folders move or are renamed. No image is read. Of a folder of more than 262,144 files
        it takes all names and some sizes; of shards their own names and sizes, and how many images each has.
        """
        return digest(self.a.entries, self.b.entries)


def digest(*groups: Iterable[Entry]) -> str:
    """SHA-256 of the names and encoded sizes of groups of images, in order."""
    hashed = hashlib.sha256()
    for group in groups:
        if isinstance(group, Entries) and group.is_whole:
            parts = group.source.identity()
        else:
            parts = (f"{entry.name}\0{entry.encoded_size()}\0" for entry in group)
        for part in parts:
            hashed.update(part.encode(errors="surrogatepass"))
        hashed.update(b"\n")
    return hashed.hexdigest()


def sample() -> Path:
    """The folder of the data set that ships with the package, in CycleGAN's layout.

    It has 114 + 21 photos and 69 crops of 9 paintings by Van Gogh, 256x256, public domain or CC0. ``SOURCES.tsv`` names
    author, licence and source of each. Use it for first runs and tests, not for claims about quality.
    """
    return Path(__file__).parent / "photo2vangogh"


def open_domains(
    root: Path | str | None = None,
    *,
    photos: Path | str | None = None,
    paintings: Path | str | None = None,
    skip_unreadable: bool = False,
) -> Domains:
    """Find the images of both domains.

    Args:
        root: a folder with ``photo_jpg`` or ``photo_tfrec`` and ``monet_jpg`` or ``monet_tfrec`` (files are preferred
            to records), or with ``trainA``, ``trainB`` and perhaps ``testA``, ``testB``. None for the competition's
            mount on Kaggle, or, where there is none, the sample. Or a set of shards with splits ``trainA``, ``trainB``
            and perhaps ``testA``, ``testB``, or with two columns of images, of photos and of paintings; options ``a``
            and ``b`` name them: ``hf:owner/name(a=photo, b=painting)``.
        photos: a folder of photos (image files or TFRecords), or shards (see :func:`open_images`), instead of the
            layout's.
        paintings: a folder of paintings or shards, instead of the layout's.
        skip_unreadable: warn of images that cannot be read, and go on without them.

    Raises:
        DataError: folders are missing (the text says what was found), a TFRecord file is damaged, or ``root``,
            ``photos`` and ``paintings`` are all given.
    """

    def opened(place: Path | str | None) -> Images | None:
        return None if place is None else open_images(place, skip_unreadable=skip_unreadable)

    if None not in (root, photos, paintings):
        raise DataError(
            f"photos and paintings are both given, so {root} would not be used: leave out one of the three (a run that "
            "is resumed keeps its own: --data None, --photos None or --paintings None)"
        )
    given_a, given_b = opened(photos), opened(paintings)
    test_a = test_b = None
    whose = ""
    if given_a is None or given_b is None:
        if root is None and (photos or paintings):
            given, missing = ("photos", "paintings") if photos else ("paintings", "photos")
            raise DataError(
                f"{given} alone do not make pairs: give a folder of {missing} too (--{missing}), or one of a data set "
                "that has them (--data)"
            )
        if root is None:
            root = next((mount for mount in _MOUNTS if mount.is_dir()), sample())
            whose = "the sample that ganparts ships: " if root == sample() else "the competition's: "
        address = parse_address(root)
        if (shards := shards_of_data(address)) is not None:
            found = _open_shards(shards, skip_unreadable=skip_unreadable)
            photos, paintings = photos or root, paintings or root
        else:
            places = _find(Path(address.place))
            wanted = (given_a is None, given_b is None)
            found = [opened(place) if wanted[i % 2] else None for i, place in enumerate(places)]
            photos, paintings = photos or places[0], paintings or places[1]
        given_a, test_a = (found[0], found[2]) if given_a is None else (given_a, None)
        given_b, test_b = (found[1], found[3]) if given_b is None else (given_b, None)
    assert given_a is not None
    assert given_b is not None
    return Domains(given_a, given_b, test_a, test_b, f"{whose}photos from {photos}, paintings from {paintings}")


def _open_shards(shards: ShardSet, *, skip_unreadable: bool) -> list[Images | None]:
    """Photos, paintings, test photos, test paintings: of the splits trainA and trainB, or of two columns."""

    def opened(split: str, column: str | None) -> Images | None:
        return (
            shards.open(split=split, column=column, skip_unreadable=skip_unreadable) if split in shards.files else None
        )

    address = shards.address
    if {"trainA", "trainB"} <= shards.files.keys():
        return [opened(f"{part}{letter}", None) for part in ("train", "test") for letter in "AB"]
    a, b = shards.two_columns()
    split = address.split or "train"
    test = "test" if address.split is None else ""
    whole = shards.open(split=split, column=a, skip_unreadable=skip_unreadable)
    return [whole, opened(split, b), opened(test, a), opened(test, b)]


def _find(root: Path) -> tuple[Path, Path, Path | None, Path | None]:
    existing_folder(root)
    for names_a, names_b, test_a, test_b in _LAYOUTS.values():
        folder_a, folder_b = (_first(root, names) for names in (names_a, names_b))
        if folder_a is not None and folder_b is not None:
            return folder_a, folder_b, _first(root, test_a), _first(root, test_b)
    looked = "; or ".join(
        f"{' or '.join(a)} with {' or '.join(b)} ({whose} layout)" for whose, (a, b, _, _) in _LAYOUTS.items()
    )
    raise DataError(
        f"{root} has no layout that is known: looked for the folders {looked}; found {listing(root)}. "
        "Any two folders can be given by hand: photos=..., paintings=... (--photos, --paintings)"
    )


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)
