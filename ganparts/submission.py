"""Write submissions to the Kaggle competition "I'm Something of a Painter Myself", and check them first."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from ganparts.data import Images
from ganparts.data.decoding import ignore_pillow_warnings
from ganparts.data.members import MEMBER_ERRORS, read_member
from ganparts.data.resizing import resize_square
from ganparts.distributed import is_first, processes
from ganparts.precision import InferencePrecision, choose_inference
from ganparts.pretrained import as_generator
from ganparts.translate import translate_to_zip
from ganparts.translate.encoding import Subsampling

__all__ = ["SubmissionError", "check_submission", "mirrored", "paint_submission", "write_submission"]

_LEAST, _MOST, _SIZE = 7_000, 10_000, 256
_SHOWN = 3  # offenders of each kind that an error lists


class SubmissionError(ValueError):
    """A submission that the competition would refuse; the text lists every problem and the first files that have it.

    Args:
        message: for a user.
        problems: each in a line.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()):
        super().__init__(message)
        self.problems = list(problems)


def write_submission(
    generator: Callable[[Tensor], Tensor] | Path | str,
    photos: Iterable[tuple[str, Tensor]],
    path: Path | str,
    *,
    mirror: bool = False,
    quality: int = 95,
    subsampling: Subsampling = "4:2:0",
    squash: bool = False,
    precision: InferencePrecision = "auto",
) -> int:
    """Paint photos into ``images.zip``, and check it.

    Args:
        generator: trained, in ``eval()`` mode; or what ``from_pretrained`` takes: a painter's name, as ``"monet"``, a
            folder, a name on the Hub; it then computes on the CPU.
        photos: names and images, uint8 [3, H, W].
        path: of the archive, which gets its name when it is complete.
        mirror: if there are fewer photos than the competition wants, paint mirrored ones until there are enough.
        quality: of the JPEGs, from 1 to 100; the competition's own have 75.
        subsampling: how the JPEGs store colours: "4:2:0" (half the height and width, as the competition's own), "4:2:2"
            (half the width) or "4:4:4" (in full).
        squash: distort photos that are not square, instead of taking their middle square.
        precision: of the network, as in :func:`ganparts.translate.translate`.

    Returns:
        How many images the archive has.

    Raises:
        SubmissionError: the competition would refuse it; the archive is kept.
        UnreadableImageError: a photo cannot be read.
        ValueError: an option is out of range, or the network cannot compute in that precision.
    """
    generator = as_generator(generator)
    choose_inference(generator, precision)  # refuses now, not after the first photo
    wanted = photos
    if mirror:  # resized here already, since many photos are kept
        wanted = mirrored(((name, resize_square(photo, _SIZE, squash=squash)) for name, photo in photos), _LEAST)
    translate_to_zip(
        generator,
        wanted,
        path,
        size=_SIZE,
        quality=quality,
        subsampling=subsampling,
        squash=squash,
        precision=precision,
    )
    return check_submission(path)


def mirrored(photos: Iterable[tuple[str, Tensor]], count: int) -> Iterator[tuple[str, Tensor]]:
    """The photos, and mirrored ones, ``name_mirrored``, until there are ``count`` or all are mirrored, too."""
    names: list[str] = []
    first: list[Tensor] = []
    for name, photo in photos:
        yield name, photo
        names.append(name)
        if len(first) < count // 2 + 1:  # more are not needed
            first.append(photo)
    for name, photo in zip(names, first[: max(0, count - len(names))], strict=False):
        yield f"{name}_mirrored", photo.flip(-1)


def check_submission(path: Path | str) -> int:
    """Check ``images.zip`` as the competition does: 7,000 to 10,000 JPEGs, RGB, 256x256, flat, of unique names.

    Every image is decoded, copies of a file only once. Copies bring a warning: the competition takes them, but they are
    seldom intended. The archive's own name is not checked.

    Args:
        path: of the archive.

    Returns:
        How many images the archive has.

    Raises:
        SubmissionError: lists everything that is wrong with it.
    """
    path = Path(path)
    try:
        archive = zipfile.ZipFile(path)
    except MEMBER_ERRORS as error:
        problem = f"not a zip archive that can be read ({error}): translate_to_zip of ganparts.translate makes one"
        raise SubmissionError(f"{path} is {problem}", [problem]) from None
    with archive:
        members = archive.infolist()
        problems, copies = _inspect(archive, members)
    images = sum(not member.is_dir() for member in members)
    wrong = [f"{kind}: {_listed(names)}" for kind, names in problems.items()]
    if not _LEAST <= images <= _MOST:
        missing = f", {_LEAST - images:,} too few (ganparts submission --mirror adds mirrored ones)"
        count = f"{images:,} images, where {_LEAST:,} to {_MOST:,} are taken"
        wrong.insert(0, count + (missing if images < _LEAST else ""))
    if wrong:
        raise SubmissionError(f"{path} would be refused:\n" + "\n".join(f"- {line}" for line in wrong), wrong)
    if copies:
        warnings.warn(f"{path}: the same to the byte as another image: {_listed(copies)}", stacklevel=2)
    return images


def _inspect(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> tuple[dict[str, list[str]], list[str]]:
    """The members that have each problem, and the members that are copies of another."""
    problems: defaultdict[str, list[str]] = defaultdict(list)
    copies: list[str] = []
    verdicts: dict[bytes, str | None] = {}  # of contents, so that copies are decoded once
    for name, times in Counter(member.filename for member in members).items():
        if times > 1:
            problems["names that come more than once"].append(name)
    for member in members:
        name = member.filename
        if "/" in name or "\\" in name:
            problems["in a folder, where all must lie flat"].append(name)
        if member.is_dir():
            continue
        if not name.lower().endswith((".jpg", ".jpeg")):
            problems["not called .jpg"].append(name)
        try:
            encoded = read_member(archive, member)
        except MEMBER_ERRORS as error:
            problems["cannot be read out of the archive"].append(f"{name} ({error})")
            continue
        digest = hashlib.sha256(encoded).digest()
        if digest in verdicts:
            copies.append(name)
        else:
            verdicts[digest] = _verdict(encoded)
        if problem := verdicts[digest]:
            problems[problem].append(name)
    return problems, copies


def _verdict(encoded: bytes) -> str | None:
    """What is wrong with an encoded image, or None."""
    try:
        ignore_pillow_warnings()
        with Image.open(io.BytesIO(encoded)) as image:
            if image.format != "JPEG":
                return f"not JPEG but {image.format}"
            if image.size != (_SIZE, _SIZE):
                return f"not {_SIZE}x{_SIZE}"
            if image.mode != "RGB":
                return f"not RGB but {image.mode}"
            image.load()
    except Exception:  # whatever Pillow's many decoders raise on damaged files
        return "cannot be decoded"
    return None


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def paint_submission(
    generator: nn.Module,
    photos: Images,
    path: Path | str,
    *,
    count: int,
    quality: int = 95,
    subsampling: Subsampling = "4:2:0",
    console: Console | None = None,
) -> None:
    """Paint the first ``count`` photos into ``images.zip``, and say whether the competition would take it.

    Several processes share the photos; call it in all of them, with the same generator.

    Args:
        generator: trained, in ``eval()`` mode.
        photos: to paint.
        path: of the archive.
        count: how many photos to paint.
        quality: as in :func:`write_submission`.
        subsampling: as in :func:`write_submission`.
        console: where to show progress and the result.

    Raises:
        UnreadableImageError: a photo cannot be read, and skipping was not chosen.
    """
    console = console or Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    more = f" (all {len(photos)}: --paint {len(photos)})" if count < len(photos) else ""
    console.print(f"Painting {min(count, len(photos))} photos{more}.")
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            tracked = progress.track(photos.readable(count, shared=True), total=-(-count // processes()))
            written = translate_to_zip(
                generator, tracked, path, quality=quality, subsampling=subsampling, together=count
            )
    except KeyboardInterrupt:
        console.print("Painting was interrupted: there is no images.zip of this run.")
        return
    if not is_first():
        return
    try:
        console.print(f"{written} paintings of {_SIZE}x{_SIZE} are in {path}")
        console.print(f"The competition takes it: {check_submission(path)} images.")
    except SubmissionError as error:
        if count >= _LEAST:
            console.print(f"The competition would refuse it: {'; '.join(error.problems)}.")
    except KeyboardInterrupt:
        console.print(f"The check was interrupted; {path} is whole.")
