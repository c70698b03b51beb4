"""Scores of a set of generated images, with everything that decides whether two of them compare."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganparts.disk import replace_file
from ganparts.metrics.resampling import Interval

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Scores"]

_CONDITIONS = {
    "extractor": "feature extractors",
    "extractor_digest": "weights or settings of the feature extractor",
    "real_digest": "real images",
    "real_count": "numbers of real images",
    "fake_count": "numbers of generated images",
    "real_size": "sizes of real images",
    "fake_size": "sizes of generated images",
    "squash": "framings (squash)",
}
_MEASURES = {
    "kid": ("KID", "lower"),
    "kid_subsets": ("KID over random halves", "lower"),
    "kid_error": ("standard error of KID", ""),
    "kid_ratio": ("KID relative to the photos'", "lower"),
    "fid": ("FID", "lower"),
    "mifid": ("MiFID", "lower"),
    "cmmd": ("CMMD", "lower"),
    "memorization": ("distance to the nearest real image", ""),
    "diversity": ("diversity", "higher"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "content_distance": ("content: distance of features", "lower"),
    "content_ssim": ("content: SSIM", "higher"),
}
_INTERVALS = ("kid", "kid_ratio", "content_distance", "content_ssim")
_NOT_IN_JSON = ("inf", "-inf", "nan")  # numbers that files hold as words


@dataclass(frozen=True)
class Scores:
    """Scores of generated images against real ones. ``rich.print`` shows them as a table.

    Args:
        extractor: name of the feature extractor; only with ``inception`` are FID and MiFID the published scores.
        extractor_digest: of its weights and settings.
        real_digest: of the real images' bytes.
        real_count: how many real images there were.
        fake_count: how many generated ones.
        real_size: of the real images, height x width: ``256x256``, or least and largest.
        fake_size: of the generated images.
        kid: see :func:`~ganparts.metrics.kid`.
        fid: see :func:`~ganparts.metrics.fid`.
        mifid: see :func:`~ganparts.metrics.mifid`.
        memorization: see :func:`~ganparts.metrics.memorization`.
        diversity: see :func:`~ganparts.metrics.diversity`.
        content_distance: see :func:`~ganparts.metrics.content_distance`; None without photos.
        content_distance_low: lower end of its 95% bootstrap interval over the images.
        content_distance_high: its upper end.
        content_ssim: mean structural similarity of photo and painting at 256x256, up to 1; None without photos.
        content_ssim_low: lower end of its 95% interval.
        content_ssim_high: its upper end.
        photos_digest: of the photos' bytes; None without photos.
        kid_low: lower end of KID's 95% interval, see :func:`~ganparts.metrics.kid_interval`.
        kid_high: its upper end.
        kid_subsets: mean KID over 100 random halves, see :func:`~ganparts.metrics.kid_subsets`.
        kid_error: KID's standard error, from the same halves.
        kid_ratio: see :func:`~ganparts.metrics.kid_ratio`; None without photos.
        kid_ratio_low: lower end of its 95% interval.
        kid_ratio_high: its upper end.
        precision: see :func:`~ganparts.metrics.prdc`; None where a set has no more than 5 images.
        recall: likewise.
        density: likewise.
        coverage: likewise.
        cmmd: see :func:`~ganparts.metrics.cmmd`; None with another extractor than ``clip``.
        features: how many features the extractor gives.
        squash: whether images that are not square were distorted instead of cropped.
    """

    extractor: str
    extractor_digest: str
    real_digest: str
    real_count: int
    fake_count: int
    real_size: str
    fake_size: str
    kid: float
    fid: float
    mifid: float
    memorization: float
    diversity: float
    content_distance: float | None = None
    content_distance_low: float | None = None
    content_distance_high: float | None = None
    content_ssim: float | None = None
    content_ssim_low: float | None = None
    content_ssim_high: float | None = None
    photos_digest: str | None = None
    kid_low: float | None = None
    kid_high: float | None = None
    kid_subsets: float | None = None
    kid_error: float | None = None
    kid_ratio: float | None = None
    kid_ratio_low: float | None = None
    kid_ratio_high: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    cmmd: float | None = None
    features: int | None = None
    squash: bool = False

    def check_comparable(self, other: Scores) -> None:
        """Raise an error unless the other scores were taken under the same conditions.

        Args:
            other: scores of another set of generated images.

        Raises:
            ValueError: they were not; the text names every condition that differs.
        """
        conditions = dict(_CONDITIONS)
        if self.photos_digest and other.photos_digest:
            conditions["photos_digest"] = "photos"
        problems = [
            f"{what} ({mine} and {theirs})"
            for name, what in conditions.items()
            if (mine := getattr(self, name)) != (theirs := getattr(other, name))
        ]
        if problems:
            raise ValueError(
                f"these scores cannot be compared: they are of different {', '.join(problems)}; evaluate both sets "
                "under the same conditions"
            )

    def interval(self, name: str = "kid_ratio") -> Interval:
        """The 95% bootstrap interval of ``kid``, ``kid_ratio``, ``content_distance`` or ``content_ssim``.

        Other scores have none: a bootstrap repeats images, which changes FID and the neighbours of precision and
        recall.

        Raises:
            ValueError: these scores have none of that name.
        """
        low, high = (getattr(self, f"{name}_{end}", None) for end in ("low", "high"))
        if low is None or high is None:
            raise ValueError(
                f"no interval of {name!r} in these scores: kid has one, and with photos kid_ratio, content_distance "
                "and content_ssim"
            )
        return Interval(low, high)

    def differs_from(self, other: Scores, name: str = "kid_ratio") -> bool:
        """Whether two results may be called different: their 95% intervals do not overlap.

        Args:
            other: scores of another set of generated images.
            name: of a score that has an :meth:`interval`.

        Raises:
            ValueError: as :meth:`check_comparable` and :meth:`interval`.
        """
        self.check_comparable(other)
        return not self.interval(name).overlaps(other.interval(name))

    def compared_with(self, other: Scores) -> dict[str, str]:
        """For a reader, each score that both have with an interval: whether the two may be called different.

        Raises:
            ValueError: as :meth:`check_comparable`.
        """
        self.check_comparable(other)
        known, told = self.values().keys() & other.values().keys(), {}
        mine, theirs = self._shown(), other._shown()
        for name in _INTERVALS:
            if {f"{name}_low", f"{name}_high"} <= known:
                apart = "different" if self.differs_from(other, name) else "not different, since the intervals overlap"
                told[_MEASURES[name][0]] = f"{mine[name]} and {theirs[name]}: {apart}"
        return told

    def values(self) -> dict[str, float]:
        """The scores that there are and the ends of their intervals, by name."""
        ends = [f"{name}_{end}" for name in _INTERVALS for end in ("low", "high")]
        return {name: value for name in (*_MEASURES, *ends) if (value := getattr(self, name)) is not None}

    def _shown(self) -> dict[str, str]:
        values = self.values()
        shown = {name: f"{value:.4f}" for name, value in values.items() if name in _MEASURES}
        for name in _INTERVALS:
            if name in shown and f"{name}_low" in values:
                low, high = self.interval(name)
                shown[name] += f" ({low:.4f} to {high:.4f})"
        return shown

    @property
    def few_images(self) -> bool:
        """Whether a set has no more images than there are features, so that FID depends on their number."""
        return self.features is not None and min(self.real_count, self.fake_count) <= self.features

    def told(self) -> dict[str, str]:
        """The scores for a reader, and what must be the same to compare others with them."""
        return {_MEASURES[name][0]: shown for name, shown in self._shown().items()} | {
            "feature extractor": self.extractor,
            "generated images": f"{self.fake_count:,} of {self.fake_size}",
            "real images": f"{self.real_count:,} of {self.real_size}",
        }

    def table(self) -> Table:
        """The scores as a rich table."""
        from rich.table import Table

        title = f"{self.extractor}: {self.fake_count} generated ({self.fake_size}), "
        table = Table("score", "value (95% interval)", "better")
        table.title = f"{title}{self.real_count} real ({self.real_size})"
        for name, shown in self._shown().items():
            label, better = _MEASURES[name]
            table.add_row(label, shown, better)
        if self.few_images:
            table.caption = f"FID, MiFID: too few images for {self.features:,} features. Compare KID instead."
        return table

    def __rich__(self) -> Table:
        return self.table()

    def write_json(self, path: Path | str) -> None:
        """Write the scores to a file that :meth:`read_json` reads."""
        infinite = {name: str(value) for name, value in asdict(self).items() if str(value) in _NOT_IN_JSON}
        content = json.dumps(asdict(self) | infinite, indent=2, allow_nan=False) + "\n"
        replace_file(Path(path), content.encode())

    @classmethod
    def read_json(cls, path: Path | str) -> Scores:
        """Read the scores in a file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds something else.
        """
        names = [field.name for field in fields(cls)]
        try:
            given: dict[str, Any] = json.loads(Path(path).read_text())
            infinite: dict[str, Any] = {name: float(value) for name, value in given.items() if value in _NOT_IN_JSON}
            return cls(**given | infinite)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not hold scores ({', '.join(names)}): {error}") from None
