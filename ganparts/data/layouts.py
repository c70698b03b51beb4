"""Find the images of the two domains: in the Kaggle competition's layout, CycleGAN's, or two given folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ganparts.data.images import DataError, ImageEntry, Images, existing_folder, listing, open_images

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
        return Images(held_out + self.a.entries, skip_unreadable=self.a.skip_unreadable)

    def summary(self) -> str:
        """Numbers of images and names of their folders, without paths: for a published model card."""
        parts = ((self.a, "photos"), (self.b, "paintings"))
        return ", ".join(f"{len(images)} {what} ({images.entries[0].path.parent.name})" for images, what in parts)

    def digest(self) -> str:
        """A hash of the training images' names and sizes in bytes, in order: 64 hexadecimal digits.

        It stays the same when the folders move or are renamed. No image is read.
        """
        return digest(self.a.entries, self.b.entries)


def digest(*groups: Iterable[ImageEntry]) -> str:
    """SHA-256 of the names and encoded sizes of groups of images, in order."""
    hashed = hashlib.sha256()
    for group in groups:
        for entry in group:
            hashed.update(f"{entry.name}\0{entry.encoded_size()}\0".encode(errors="surrogatepass"))
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
            mount on Kaggle, or, where there is none, the sample.
        photos: a folder of photos (image files or TFRecords), instead of the layout's.
        paintings: a folder of paintings, instead of the layout's.
        skip_unreadable: warn of images that cannot be read, and go on without them.

    Raises:
        DataError: folders are missing (the text says what was found), or a TFRecord file is damaged.
    """
    folder_a, folder_b = (None if given is None else Path(given) for given in (photos, paintings))
    test_a = test_b = None
    whose = ""
    if folder_a is None or folder_b is None:
        if root is None and (photos or paintings):
            given, missing = ("photos", "paintings") if photos else ("paintings", "photos")
            raise DataError(
                f"{given} alone do not make pairs: give a folder of {missing} too (--{missing}), or one of a data set "
                "that has them (--data)"
            )
        if root is None:
            root = next((mount for mount in _MOUNTS if mount.is_dir()), sample())
            whose = "the sample that ganparts ships: " if root == sample() else "the competition's: "
        found_a, found_b, test_a, test_b = _find(Path(root))
        folder_a, test_a = (found_a, test_a) if folder_a is None else (folder_a, None)
        folder_b, test_b = (found_b, test_b) if folder_b is None else (folder_b, None)

    def optional(folder: Path | None) -> Images | None:
        return None if folder is None else open_images(folder, skip_unreadable=skip_unreadable)

    return Domains(
        a=open_images(folder_a, skip_unreadable=skip_unreadable),
        b=open_images(folder_b, skip_unreadable=skip_unreadable),
        test_a=optional(test_a),
        test_b=optional(test_b),
        origin=f"{whose}photos from {folder_a}, paintings from {folder_b}",
    )


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
