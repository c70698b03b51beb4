"""``ganparts import``: a published checkpoint as a pretrained folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ganparts.cli.app import app, console
from ganparts.interchange import ModelCard, load_published, save_pretrained

__all__ = ["import_published"]


@app.command(name="import")
def import_published(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    key: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
) -> int:
    """Turn a published checkpoint into a pretrained folder.

    It reads the networks of CycleGAN, pix2pix, CUT, U-GAT-IT, UVCGAN2, GANILLA and AttentionGAN, and the
    discriminator of pix2pixHD. You need not say which: the command finds out from the weights, with depth, width,
    channels and norm. No code in the file is run.
    Example: ganparts import latest_net_G_A.pth imported

    Args:
        file: Checkpoint file, as torch.save writes it.
        out: Folder to write; it must be empty or new.
        key: Name of one network, such as netG_A, in a file that holds several.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} is there already, and not empty: choose another folder")
    network, taken = load_published(file, key=key)
    if "built_from" not in vars(network):
        raise ValueError(
            f"{file} holds a {type(network).__name__}, which is not a part that a folder can hold: in Python, "
            "ganparts.interchange.load_published reads it"
        )
    kind, name, options = vars(network)["built_from"]
    save_pretrained(network, out, card=ModelCard(text=f"Imported from the checkpoint `{file.name}`."))
    described = ", ".join(f"{option}={value!r}" for option, value in options.items())
    parameters = sum(parameter.numel() for parameter in network.parameters())
    console.print(f"Took {f'{taken} of ' if taken else ''}{file}: the {kind} {name} ({described})")
    console.print(f"{parameters:,} parameters, from_pretrained({str(out)!r}) loads it")
    return 0
