"""``ganparts import-junyanz``: a published checkpoint as a pretrained folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ganparts.cli.app import app, console
from ganparts.interchange import ModelCard, load_junyanz, save_pretrained

__all__ = ["import_junyanz"]


@app.command
def import_junyanz(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    key: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
) -> int:
    """Make a pretrained folder of a published checkpoint.

    Of pytorch-CycleGAN-and-pix2pix and what uses its layers' names: generators (ResNet, U-Net) and discriminators.
    Kind, depth, width, channels and norm are read from the weights; no code in the file is run.
    Example: ganparts import-junyanz latest_net_G_A.pth monet

    Args:
        file: Checkpoint file, as torch.save writes it.
        out: Folder to write; it must be empty or new.
        key: Name of one network, as netG_A, in a file that holds several.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} is there already, and not empty: choose another folder")
    network, taken = load_junyanz(file, key=key)
    kind, name, options = vars(network)["built_from"]
    save_pretrained(network, out, card=ModelCard(text=f"Imported from the checkpoint `{file.name}`."))
    described = ", ".join(f"{option}={value!r}" for option, value in options.items())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    console.print(f"Took {f'{taken} of ' if taken else ''}{file}: the {kind} {name} ({described})")
    console.print(f"{parameters:,} parameters, from_pretrained({str(out)!r}) loads it")
    return 0
