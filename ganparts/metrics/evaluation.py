"""Scores of two sets of images, or of a generator and photos."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ganparts.blocks import check_counts, evaluating
from ganparts.distributed import gather, is_first, processes, rank
from ganparts.metrics.cache import digest_of_module
from ganparts.metrics.distances import cmmd, content_distances, diversity, fid, memorization, penalized
from ganparts.metrics.extractors import create_extractor
from ganparts.metrics.features import IMAGE_SIZE
from ganparts.metrics.manifolds import prdc
from ganparts.metrics.reading import Reader, interleaved, progress_bar
from ganparts.metrics.resampling import kid_scores, mean_scores
from ganparts.metrics.scores import Scores
from ganparts.metrics.sources import ImageSource, Scored, open_source, photo_of_each, without_unreadable
from ganparts.pretrained import from_pretrained, is_pretrained

__all__ = ["Evaluator", "FewImagesWarning", "evaluate"]

_NEIGHBOURS = 5  # that precision, recall, density and coverage look at


class FewImagesWarning(UserWarning):
    """A set has too few images for FID, no more than features; the text says what to compare instead."""


def evaluate(
    real: ImageSource,
    fake: ImageSource | nn.Module,
    *,
    extractor: str | nn.Module = "auto",
    limit: int | None = None,
    photos: ImageSource | None = None,
    squash: bool = False,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    workers: int = 2,
    progress: bool = True,
) -> Scores:
    """Score generated images against real ones.

    Images pass in batches, and only their features stay in memory. Features of the real images and of the photos are
    computed once and kept on disk (``$GANPARTS_CACHE``, else ``~/.cache/ganparts``), under a name made of the images'
    bytes and the extractor. Modules work in ``eval()`` mode and get their own mode back.

    Images that are not square are cropped to their middle square, as for training.

    Args:
        real: a folder of images or TFRecords, a zip archive of images, or a sequence of them: uint8 [3, H, W]
            tensors, Pillow images or image files.
        fake: the same kinds of images; or a generator, or the name of one (as ``"monet"``), which paints ``photos`` at
            256x256 (in bf16 where :func:`ganparts.translate.translate` would).
        extractor: a name in ``FEATURE_EXTRACTORS``; ``timm:<model>``; ``auto``, which is ``inception`` if its weights
            are on this machine already, else ``efficientnet_lite0``; or a module that maps uint8 [B, 3, H, W] to
            float [B, D]. If it has ``input_size``, images are resized to that with Pillow's bicubic.
        limit: score only the first generated images, by name or in order; None for all.
        photos: the photos that ``fake`` are paintings of, matched by name if all have names, else by place. They add
            the scores of content kept, and KID relative to the photos' own.
        squash: distort images that are not square to a square, instead of cropping them.
        device: where an extractor or a generator given by name computes; None for CUDA if there is one, else the CPU.
            Modules stay where they are.
        batch_size: images at a time.
        workers: processes that decode; 0 for none.
        progress: show a bar, if standard error is a terminal.

    Warns:
        FewImagesWarning: a set has no more images than the extractor has features, too few for FID.

    Raises:
        UnreadableImageError: an image cannot be read.
        DataError: there are no images, or a painting has no photo.
        UnavailableError: a package or weights are missing.
        UnknownPartError: there is no extractor of that name.
        TypeError: a generator without photos, or a sequence of something other than images.
        ValueError: fewer than 2 images in a set, ``limit`` below 2, or an extractor that gives no matrix of features.
    """
    options = {"limit": limit, "squash": squash, "batch_size": batch_size, "workers": workers, "progress": progress}
    scores = _evaluate(real, fake, photos, extractor=extractor, device=device, **options)
    assert scores is not None
    return scores


def _evaluate(
    real: ImageSource,
    fake: ImageSource | nn.Module,
    photos: ImageSource | None,
    *,
    extractor: str | nn.Module,
    limit: int | None,
    squash: bool,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    workers: int,
    progress: bool,
    shared: bool = False,
) -> Scores | None:
    """See :func:`evaluate`. If ``shared``, several processes paint and read a share each; None in all but the first."""
    if limit is not None:
        check_counts(least=2, limit=limit)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(fake, str | Path) and is_pretrained(fake):
        fake = from_pretrained(fake, kind="generator", device=str(device))
    generator = fake if isinstance(fake, nn.Module) else None
    fake_entries = None if isinstance(fake, nn.Module) else open_source(fake)
    photo_entries = _photos(photos, fake_entries)[:limit]
    fake_entries = fake_entries[:limit] if fake_entries else None
    real_entries = open_source(real)
    if isinstance(extractor, str):
        extractor = create_extractor(extractor).to(device)

    with evaluating(extractor, generator), progress_bar(progress) as bar:
        reader = Reader(extractor, digest_of_module(extractor), squash, batch_size, workers, bar)
        own = photo_entries[rank() :: processes()] if shared else []
        if shared and not is_first():
            gather(reader.paintings(None, own, generator) if own else None)
            return None
        real_set, real_digest = reader.kept(real_entries, "real images")
        if shared:
            parts = gather(reader.paintings(None, own, generator)) or []
            found = interleaved([part for part in parts if part is not None])
        else:
            found = reader.paintings(fake_entries, photo_entries, generator)
        fake_set = found.features()
        photo_set, photos_digest = None, None
        if photo_entries:  # as small as the paintings, so that the ratio of untouched photos is 1
            painted = found.sizes == {(IMAGE_SIZE, IMAGE_SIZE)}
            photo_set, photos_digest = reader.kept(photo_entries, "photos", painted=painted)
    label = _label(extractor)
    scores = Scores(
        extractor=label,
        extractor_digest=reader.digest[:16],
        real_digest=real_digest[:16],
        real_count=len(real_entries),
        fake_count=len(fake_set.matrix),
        real_size=real_set.size,
        fake_size=fake_set.size,
        squash=squash,
        features=fake_set.matrix.shape[1],
        **_distances(real_set.matrix, fake_set.matrix),
        **kid_scores(real_set.matrix, fake_set.matrix, photo_set.matrix if photo_set else None),
        **_neighbours(real_set.matrix, fake_set.matrix),
        cmmd=cmmd(real_set.matrix, fake_set.matrix).item() if label.partition(":")[0] == "clip" else None,
        **mean_scores(
            content_distance=content_distances(photo_set.matrix, fake_set.matrix) if photo_set else None,
            content_ssim=found.similarities,
        ),
        photos_digest=photos_digest[:16] if photos_digest else None,
    )
    if scores.few_images:
        warnings.warn(
            f"FID and MiFID of {scores.fake_count:,} generated and {scores.real_count:,} real images, where {label} "
            f"has {scores.features:,} features: with so few images they depend on the number of images more than on "
            "what is in them. Compare KID and its interval instead",
            FewImagesWarning,
            stacklevel=3,  # the caller of evaluate or of an Evaluator
        )
    return scores


class Evaluator:
    """Scores one generator again and again under the same conditions, while it trains.

    Args:
        real: as in :func:`evaluate`.
        photos: to paint, always the same. Unreadable images are left out, with a warning, where
            :class:`~ganparts.data.Images` skip them.
        extractor: a name, as in :func:`evaluate`; it is built once.
        limit: paint only the first photos; None for all.
        squash: distort images that are not square to a square, instead of cropping them.
        device: where the extractor computes.
        workers: processes that decode; 0 for none.

    Raises:
        UnavailableError: a package or weights are missing.
        ValueError: fewer than 2 photos or real images.
    """

    def __init__(
        self,
        real: ImageSource,
        *,
        photos: ImageSource,
        extractor: str = "auto",
        limit: int | None = None,
        squash: bool = False,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ):
        self.extractor = create_extractor(extractor).to(device)
        self.real, self.photos = without_unreadable(real), without_unreadable(photos)
        for kind, images in (("photos", self.photos), ("real images", self.real)):
            if (count := len(open_source(images))) < 2:
                raise ValueError(f"there are {count} {kind} to score with: give 2 or more; hundreds are better")
        self.conditions = {"limit": limit, "squash": squash, "workers": workers}

    def __call__(self, generator: nn.Module) -> Scores | None:
        """Scores of what a generator, in either mode, makes of the photos.

        Several processes share the photos: call it in all of them, with the same generator. It gives None in all but
        the first.
        """
        options = {"progress": False, "shared": processes() > 1, **self.conditions}
        return _evaluate(self.real, generator, self.photos, extractor=self.extractor, **options)


def _distances(real: Tensor, fake: Tensor) -> dict[str, float]:
    distance, copied = fid(real, fake), memorization(real, fake)
    values = {
        "fid": distance,
        "mifid": penalized(distance, copied),
        "memorization": copied,
        "diversity": diversity(fake),
    }
    return {name: value.item() for name, value in values.items()}


def _neighbours(real: Tensor, fake: Tensor) -> dict[str, float]:
    return prdc(real, fake, k=_NEIGHBOURS)._asdict() if min(len(real), len(fake)) > _NEIGHBOURS else {}


def _photos(photos: ImageSource | None, fake_entries: list[Scored] | None) -> list[Scored]:
    if photos is None and fake_entries is None:
        raise TypeError("a generator is scored by its paintings: give photos=..., a folder, an archive or a sequence")
    if photos is None:
        return []
    entries = open_source(photos)
    return entries if fake_entries is None else photo_of_each(entries, fake_entries)


def _label(extractor: nn.Module) -> str:
    """``inception``, ``timm:resnet18``, or the name of a module's class."""
    _, name, options = getattr(extractor, "built_from", (None, type(extractor).__name__, {}))
    return ":".join([name, *([options["model"]] if "model" in options else [])])
