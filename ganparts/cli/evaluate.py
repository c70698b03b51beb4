"""``ganparts evaluate``: how good generated images are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ganparts.cli.app import Imports, app, console, import_parts, load_generator

__all__ = ["evaluate"]


@app.command
def evaluate(
    real: tyro.conf.Positional[Path],
    fake: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FAKE")],
    /,
    photos: Path | None = None,
    extractor: str = "auto",
    limit: int | None = None,
    device: str = "auto",
    workers: int = 2,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    imports: Imports = (),
) -> int:
    """Score generated images against real ones: KID, FID, the competition's MiFID, diversity, content kept.

    Examples: ganparts evaluate monet_jpg images.zip --photos photo_jpg;
    ganparts evaluate monet_jpg runs/first/generator --photos photo_jpg --limit 1500 -o scores.json

    Args:
        real: A folder of images or TFRecords, or a zip of images.
        fake: Likewise; or a pretrained folder, .onnx file or name on the Hugging Face Hub, whose generator then paints
            the photos.
        photos: Of which the generated images are paintings: content kept is scored, too.
        extractor: inception, efficientnet_lite0, timm:MODEL, or auto: the first of these whose weights are here.
        limit: Score the first so many generated images.
        device: auto, cpu, cuda ...
        workers: Processes that decode images.
        out: A JSON file for the scores.
        imports: Modules to import first, which register parts of your own (PYTHONPATH).
    """
    from ganparts.metrics import evaluate as score
    from ganparts.pretrained.hub import is_hub_name
    from ganparts.training import pick_device

    import_parts(imports)
    chosen = pick_device(device)
    published = is_hub_name(fake) and not Path(fake).exists()
    is_model = published or fake.endswith(".onnx") or (Path(fake) / "config.json").is_file()
    scores = score(
        real,
        load_generator(fake, device=chosen) if is_model else Path(fake),
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
