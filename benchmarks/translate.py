"""How long a set of photos takes: ``ganparts translate``'s way against a plain loop, one photo at a time.

Both read files, run the same network and write JPEGs. With ``--ray`` the command's way on a cluster runs, too: its
seconds include the start of the actors, not that of Ray. Run it from the repository:
``python -m benchmarks.translate --help``.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from rich.console import Console
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from benchmarks.record import interleaved, summary, write_json
from ganparts import GENERATORS, from_pretrained
from ganparts.data import sample
from ganparts.training import pick_device
from ganparts.translate import translate_files, translate_on_cluster


@dataclass(frozen=True)
class Config:
    """Seconds for a set of photos."""

    generator: str = "resnet9"
    """By its name, or a pretrained folder or painter."""
    width: int = 64
    """Channels after its first convolution, of a generator by its name."""
    folder: Path | None = None
    """Of the photos; None for the sample's 135, all of 256x256 pixels."""
    photos: int = 135
    """So many of them."""
    plain_loop: bool = True
    """Also run the plain loop, in fp32."""
    ray: bool = False
    """Also translate them on a Ray cluster that is this machine."""
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
    known = config.generator in GENERATORS
    network = (
        GENERATORS.create(config.generator, width=config.width)
        if known
        else from_pretrained(config.generator, kind="generator")
    )
    assert isinstance(network, nn.Module)
    network.eval()
    of_the_sample = [*sorted((sample() / "testA").glob("*.jpg")), *sorted((sample() / "trainA").glob("*.jpg"))]
    found = of_the_sample if config.folder is None else sorted(config.folder.glob("*.jpg"))
    photos = found[: config.photos]
    out = Path(tempfile.mkdtemp())
    again: dict[str, Any] = {"batch_size": config.batch_size, "overwrite": True}
    ways: dict[str, Callable[[], object]] = {
        "translate_files": lambda: translate_files(network.to(device), photos, out, **again)
    }
    if config.plain_loop:
        ways["plain loop"] = lambda: plain_loop(network.to(device), photos, out, device)
    if config.ray:
        ways["translate_on_cluster"] = lambda: translate_on_cluster(
            network.cpu(), photos, out, address="local", device=config.device, **again
        )
    try:
        seconds = interleaved(ways, rounds=config.rounds, warmup=config.warmup, device=device)
    finally:
        shutil.rmtree(out)
    results = [{"what": what, **summary(taken)} for what, taken in seconds.items()]
    for what, taken in seconds.items():
        if what != "translate_files":
            ratio = statistics.median(a / b for a, b in zip(taken, seconds["translate_files"], strict=True))
            results.append({"what": f"{what} / translate_files, median of neighbours", "ratio": round(ratio, 3)})
    for row in results:
        Console(width=120).print(row)
    write_json(config.out, settings=vars(config), results=results, device=device)


if __name__ == "__main__":
    main()
