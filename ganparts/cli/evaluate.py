"""``ganparts evaluate``: how good generated images are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ganparts.cli.app import app, console

__all__ = ["evaluate"]


@app.command
def evaluate(
    real: tyro.conf.Positional[Path],
    fake: tyro.conf.Positional[Path],
    /,
    photos: Path | None = None,
    extractor: str = "auto",
    limit: int | None = None,
    device: str = "auto",
    workers: int = 2,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
) -> int:
    """Score generated images against real ones: KID, FID, the competition's MiFID, diversity, content kept.

    Examples: ganparts evaluate monet_jpg images.zip --photos photo_jpg;
    ganparts evaluate monet_jpg runs/first/generator --photos photo_jpg --limit 1500 -o scores.json

    Args:
        real: A folder of images or TFRecords, or a zip of images.
        fake: Likewise; or a pretrained folder, whose generator then paints the photos.
        photos: Of which the generated images are paintings: content kept is scored, too.
        extractor: inception, efficientnet_lite0, timm:MODEL, or auto: the first of these whose weights are here.
        limit: Score the first so many generated images.
        device: auto, cpu, cuda ...
        workers: Processes that decode images.
        out: A JSON file for the scores.
    """
    from ganparts.interchange import from_pretrained
    from ganparts.metrics import evaluate as score
    from ganparts.training import pick_device

    chosen = pick_device(device)
    is_model = (fake / "config.json").is_file()
    scores = score(
        real,
        from_pretrained(fake).to(chosen) if is_model else fake,
        photos=photos,
        extractor=extractor,
        limit=limit,
        device=chosen,
        workers=workers,
    )
    console.print(scores)
    if out is not None:
        scores.write_json(out)
    return 0
