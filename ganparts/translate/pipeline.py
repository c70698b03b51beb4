"""Decode, translate, encode, in threads: photos by the million, in constant memory."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ganparts.blocks import check_counts
from ganparts.data import UnreadableImageError, resize_shorter, resize_square
from ganparts.precision import InferencePrecision, device_of
from ganparts.translate.encoding import Encoding
from ganparts.translate.image import check_tile, pixels_at_once, translate_pixels
from ganparts.translate.sinks import Sink
from ganparts.translate.sources import Photo
from ganparts.translate.tiles import TilingError

__all__ = ["Report", "Settings", "translate_photos", "wanted_photos"]

_Wanted = TypeVar("_Wanted", bound=Photo)
_MOST_PROBLEMS = 1000  # that are remembered in words


@dataclass
class Report:
    """What became of the inputs.

    Args:
        written: results that were written.
        skipped: results that were there already.
        failed: inputs without a result.
        problems: a sentence for each failed input, up to a thousand.
    """

    written: int = 0
    skipped: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Inputs of which it is known what became of them."""
        return self.written + self.skipped + self.failed

    def fail(self, problem: object) -> None:
        self.failed += 1
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(str(problem))


@dataclass(frozen=True)
class Settings:
    """How photos are translated and written; the fields are arguments of :func:`translate_files`.

    Raises:
        ValueError: an option is out of range.
    """

    encoding: Encoding
    size: int | None = None
    squash: bool = False
    batch_size: int = 16
    tile: int | None = None
    precision: InferencePrecision = "auto"
    resize: int | None = None
    margin: int = 0

    def __post_init__(self) -> None:
        check_counts(batch_size=self.batch_size)
        check_counts(**{name: value for name in ("size", "resize") if (value := getattr(self, name)) is not None})
        if None not in (self.size, self.resize):
            raise ValueError("size makes squares and resize keeps the aspect ratio: give one of them")
        if self.squash and self.size is None:
            raise ValueError("squash=True needs the size to squash photos to (size=..., --size)")
        check_counts(least=0, margin=self.margin)
        check_tile(self.tile)

    def load(self, photo: Photo) -> Tensor:
        """The pixels that go through the generator, uint8 [3, H, W].

        Raises:
            UnreadableImageError: the photo cannot be read, or its translation not be written.
        """
        pixels = photo.load()
        if self.size is not None:
            pixels = resize_square(pixels, self.size, squash=self.squash)
        try:
            if self.resize is not None:
                pixels = resize_shorter(pixels, self.resize)
            self.encoding.check_size(pixels)
        except ValueError as error:
            raise UnreadableImageError(f"{photo}: {error}") from None
        return _mirrored(pixels, self.margin)


def _mirrored(pixels: Tensor, margin: int) -> Tensor:
    """Pixels [3, H, W] with so many more on each side, mirrored."""
    for axis in (1, 2):
        period = max(1, 2 * (pixels.shape[axis] - 1))
        places = torch.arange(-margin, pixels.shape[axis] + margin) % period
        pixels = pixels.index_select(axis, torch.minimum(places, period - places))
    return pixels


def _without_margin(painting: Tensor, margin: int) -> Tensor:
    return painting[:, margin : painting.shape[1] - margin, margin : painting.shape[2] - margin]


@dataclass(frozen=True)
class _Loaded:
    """A decoded photo, uint8 [3, H, W], and the name of its result."""

    target: str
    photo: Photo
    pixels: Tensor


def translate_photos(
    generator: Callable[[Tensor], Tensor],
    wanted: Iterator[tuple[str, Photo]],
    sink: Sink,
    settings: Settings,
    *,
    workers: int,
    report: Report,
    progress: Callable[[Report], None] = lambda report: None,
) -> None:
    """Translate photos and write them to a sink; what became of them is added to ``report``.

    Args:
        generator: trained, in ``eval()`` mode.
        wanted: the names of the results, which the sink has claimed, and the photos.
        sink: where to write.
        settings: how.
        workers: threads that decode, and as many that encode.
        report: what becomes of the photos is added to it.
        progress: called after each photo.
    """
    with ThreadPoolExecutor(workers) as decoders, _Writer(sink, workers, settings.encoding, report) as writer:
        loaded = _load_ahead(wanted, settings.load, decoders, workers + 1, sink, report, progress)
        for batch in _by_size(loaded, settings.batch_size, pixels_at_once(device_of(generator))):
            try:
                batched = torch.stack([each.pixels for each in batch])
                paintings = translate_pixels(generator, batched, tile=settings.tile, precision=settings.precision)
                del batched
            except TilingError as error:
                for each in batch:
                    _fail(each.target, f"{each.photo}: {error}", sink, report)
            else:
                for each, painting in zip(batch, paintings, strict=True):
                    writer.write(each.target, _without_margin(painting, settings.margin))
            progress(report)


def wanted_photos(
    photos: Iterable[_Wanted],
    sink: Sink,
    target_of: Callable[[_Wanted], str],
    report: Report,
    progress: Callable[[Report], None] = lambda report: None,
) -> Iterator[tuple[str, _Wanted]]:
    """The photos without a result, and the names of their results."""
    for photo in photos:
        target = target_of(photo)
        if _is_same_file(photo.path, sink.path / target):
            report.fail(f"{photo}: its result would replace it: give another folder for the results (-o)")
            continue
        claim = sink.claim(target) if photo.name else "free"
        if claim == "free":
            yield target, photo
            continue
        if claim == "done":
            report.skipped += 1
        elif claim == "too long":
            report.fail(f"{photo}: its result's name is too long for a file: rename the photo")
        else:
            report.fail(f"{photo}: another input, or another run just now, has the result {target}: rename one of them")
        progress(report)


def _fail(target: str, problem: object, sink: Sink, report: Report) -> None:
    sink.release(target, str(problem))
    report.fail(problem)


def _is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths are one file, whatever they are written like; in an object store, whether they are equal."""
    try:
        return one == other or os.path.samefile(one, other)
    except OSError:
        return False


def _load_ahead(
    wanted: Iterator[tuple[str, Photo]],
    load: Callable[[Photo], Tensor],
    pool: ThreadPoolExecutor,
    ahead: int,
    sink: Sink,
    report: Report,
    progress: Callable[[Report], None],
) -> Iterator[_Loaded]:
    """Decode photos in threads, at most ``ahead`` of them in advance; those that cannot be read are reported."""
    waiting: deque[tuple[str, Photo, Future[Tensor]]] = deque()
    more = True
    while more or waiting:
        while more and len(waiting) < ahead:
            if more := (following := next(wanted, None)) is not None:
                waiting.append((*following, pool.submit(load, following[1])))
        if waiting:
            target, photo, future = waiting.popleft()
            try:
                loaded = _Loaded(target, photo, future.result())
            except UnreadableImageError as error:
                _fail(target, error, sink, report)
                progress(report)
                continue
            del future
            yield loaded
            del loaded


def _by_size(loaded: Iterator[_Loaded], batch_size: int, pixels: int) -> Iterator[list[_Loaded]]:
    """Batches of photos of one size: at most ``batch_size``, and about ``pixels`` pixels. Twice as many may wait."""
    waiting: dict[tuple[int, ...], list[_Loaded]] = defaultdict(list)
    count = area = 0
    for each in loaded:
        batch = waiting[shape := tuple(each.pixels.shape)]
        batch.append(each)
        count, area = count + 1, area + each.pixels[0].numel()
        del each
        full = len(batch) == batch_size or len(batch) * shape[1] * shape[2] >= pixels
        while full or count > 2 * batch_size or area > 2 * pixels:
            fullest = shape if full else max(waiting, key=lambda key: len(waiting[key]))
            batch, full = waiting.pop(fullest), False
            count, area = count - len(batch), area - len(batch) * fullest[1] * fullest[2]
            yield batch
        del batch
    yield from waiting.values()


class _Writer:
    """Encodes and writes in threads; at most two pictures per thread wait."""

    def __init__(self, sink: Sink, workers: int, encoding: Encoding, report: Report):
        self.sink, self.encoding, self.report = sink, encoding, report
        self.pool = ThreadPoolExecutor(workers)
        self.limit = 2 * workers
        self.pending: deque[Future[None]] = deque()

    def write(self, target: str, painting: Tensor) -> None:
        while len(self.pending) >= self.limit:
            self._finish_one()
        self.pending.append(self.pool.submit(self._encode, target, painting))

    def _encode(self, target: str, painting: Tensor) -> None:
        self.sink.write(target, self.encoding.encode(painting))

    def _finish_one(self) -> None:
        self.pending.popleft().result()
        self.report.written += 1

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self.pending and kind is None:
                self._finish_one()
        finally:
            self.pool.shutdown()
