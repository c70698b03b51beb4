"""``ganparts evaluate``: how good generated images are."""

from __future__ import annotations

import warnings
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
    squash: bool = False,
    device: str = "auto",
    workers: int = 2,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    compare: Path | None = None,
    imports: Imports = (),
) -> int:
    """Score generated images against real ones: KID, FID, the competition's MiFID, precision and recall, content kept.

    Examples: ganparts evaluate monet_jpg images.zip --photos photo_jpg;
    ganparts evaluate monet_jpg runs/first --photos photo_jpg --limit 1500 -o scores.json;
    ganparts evaluate monet_jpg runs/second --photos photo_jpg --limit 1500 --compare scores.json

    Args:
        real: A folder of images or TFRecords, or a zip of images.
        fake: The same; or a run folder, pretrained folder, .onnx file or name on the Hugging Face Hub, whose generator
            then paints the photos.
        photos: Photos that the generated images are paintings of. They add content kept, and KID relative to the
            photos' own, on a scale that is the same with every extractor.
        extractor: inception, efficientnet_lite0 (or 1, 2), clip, dino, timm:MODEL, or auto: inception if its weights
            are here, else efficientnet_lite0.
        limit: Number of generated images to score, the first ones. None: all.
        squash: Distort images that are not square, instead of scoring their middle square.
        device: Device to compute on: auto, cpu, cuda ...
        workers: Processes that decode images.
        out: A JSON file for the scores.
        compare: A JSON file that -o wrote: say which of the new scores differ from those by more than chance.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    from ganparts.metrics import FewImagesWarning, Scores
    from ganparts.metrics import evaluate as score
    from ganparts.pretrained import is_pretrained
    from ganparts.training import pick_device

    import_parts(imports)
    if out is not None:
        if out.is_dir():
            raise ValueError(f"{out} is a folder: give a file for the scores (-o)")
        out.parent.mkdir(parents=True, exist_ok=True)  # now, not after an hour of scoring
    other = Scores.read_json(compare) if compare is not None else None
    chosen = pick_device(device)
    is_model = fake.endswith(".onnx") or is_pretrained(fake)
    generator = load_generator(fake, device=chosen) if is_model else Path(fake)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewImagesWarning)  # the table says it
        scores = score(
            real,
            generator,
            photos=photos,
            extractor=extractor,
            limit=limit,
            squash=squash,
            device=chosen,
            workers=workers,
        )
    console.print(scores)
    if out is not None:
        scores.write_json(out)
    if other is not None:
        console.print(f"Compared with {compare}, by 95% intervals:")
        for label, said in scores.compared_with(other).items():
            console.print(f"  {label}: {said}")
    return 0
