"""How long the sample's photos take: ``ganparts translate``'s way against a plain loop, one photo at a time.

Both read files, run the same network and write JPEGs. Run it from the repository:
``python -m benchmarks.translate --help``.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image
from rich.console import Console
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from benchmarks.record import interleaved, summary, write_json
from ganparts import GENERATORS
from ganparts.data import sample
from ganparts.training import pick_device
from ganparts.translate import translate_files


@dataclass(frozen=True)
class Config:
    """Seconds for a set of photos."""

    generator: str = "resnet9"
    """By its name."""
    width: int = 64
    """Channels after its first convolution."""
    photos: int = 135
    """So many of the sample's 135, all of 256x256 pixels."""
    batch_size: int = 1
    """Of ganparts translate, whose own choice is 1 on a CPU and 16 on a GPU."""
    rounds: int = 3
    """Counted runs of each."""
    warmup: int = 1
    """Runs of each before."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    out: Path = Path("benchmarks/results/translate.json")
    """Where the record goes."""


@torch.inference_mode()
def plain_loop(network: nn.Module, photos: Sequence[Path], out: Path, device: torch.device) -> None:
    """What one would write in a notebook."""
    for photo in photos:
        with Image.open(photo) as image:
            pixels = pil_to_tensor(image.convert("RGB"))
        painting = network(pixels[None].to(device).float() / 127.5 - 1)[0]
        result = ((painting + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
        to_pil_image(result).save(out / f"{photo.stem}.jpg", quality=95)


def main() -> None:
    config = tyro.cli(Config, description=__doc__)
    device = pick_device(config.device)
    torch.manual_seed(0)
    network = GENERATORS.create(config.generator, width=config.width)
    assert isinstance(network, nn.Module)
    network.to(device).eval()
    photos = [*sorted((sample() / "testA").glob("*.jpg")), *sorted((sample() / "trainA").glob("*.jpg"))][
        : config.photos
    ]
    out = Path(tempfile.mkdtemp())
    try:
        seconds = interleaved(
            {
                "plain loop": lambda: plain_loop(network, photos, out, device),
                "translate_files": lambda: translate_files(
                    network, photos, out, batch_size=config.batch_size, overwrite=True
                ),
            },
            rounds=config.rounds,
            warmup=config.warmup,
            device=device,
        )
    finally:
        shutil.rmtree(out)
    ratio = statistics.median(a / b for a, b in zip(seconds["plain loop"], seconds["translate_files"], strict=True))
    results = [{"what": what, **summary(taken)} for what, taken in seconds.items()]
    results.append({"what": "plain loop / translate_files, median of neighbours", "ratio": round(ratio, 3)})
    for row in results:
        Console(width=120).print(row)
    write_json(config.out, settings=vars(config), results=results, device=device)


if __name__ == "__main__":
    main()
