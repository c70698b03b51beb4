"""Scores of a set of generated images, with all that decides whether two of them can be compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

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
}
_MEASURES = {
    "kid": ("KID", "lower"),
    "fid": ("FID", "lower"),
    "mifid": ("MiFID", "lower"),
    "memorization": ("distance to the nearest real image", ""),
    "diversity": ("diversity", "higher"),
    "content_distance": ("content: distance of features", "lower"),
    "content_ssim": ("content: SSIM", "higher"),
}


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
        content_ssim: mean structural similarity of photo and painting at 256x256, up to 1; None without photos.
        photos_digest: of the photos' bytes; None without photos.
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
    content_ssim: float | None = None
    photos_digest: str | None = None

    def check_comparable(self, other: Scores) -> None:
        """Pass if the other scores were taken under the same conditions.

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

    def compare(self, other: Scores) -> dict[str, float]:
        """How much larger each score of ``other`` is than this one's, of those that both have.

        Raises:
            ValueError: as :meth:`check_comparable`.
        """
        self.check_comparable(other)
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in _MEASURES}
        return {name: after - before for name, (before, after) in pairs.items() if None not in (before, after)}

    def values(self) -> dict[str, float]:
        """The scores that there are, by name."""
        return {name: value for name in _MEASURES if (value := getattr(self, name)) is not None}

    def told(self) -> dict[str, str]:
        """The scores for a reader, and what must be the same where others are compared with them."""
        scores = {_MEASURES[name][0]: f"{value:.4f}" for name, value in self.values().items()}
        return scores | {
            "feature extractor": self.extractor,
            "generated images": f"{self.fake_count:,} of {self.fake_size}",
            "real images": f"{self.real_count:,} of {self.real_size}",
        }

    def table(self) -> Table:
        """The scores as a rich table."""
        from rich.table import Table

        title = f"{self.extractor}: {self.fake_count} generated ({self.fake_size}), "
        table = Table("score", "value", "better", title=f"{title}{self.real_count} real ({self.real_size})")
        for name, (label, better) in _MEASURES.items():
            value = getattr(self, name)
            if value is not None:
                table.add_row(label, f"{value:.4f}", better)
        return table

    def __rich__(self) -> Table:
        return self.table()

    def write_json(self, path: Path | str) -> None:
        """Write them to a file, which :meth:`read_json` reads."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read_json(cls, path: Path | str) -> Scores:
        """The scores in a file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds something else.
        """
        names = [field.name for field in fields(cls)]
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} does not hold scores ({', '.join(names)}): {error}") from None
