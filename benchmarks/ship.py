"""Ship a run's generator as a painter, which ``from_pretrained("NAME")`` then loads.

Run it from the repository: ``python -m benchmarks.ship RUN NAME --title ... --data ... --license ... --command ...
--scores scores.json``, with the scores of ``ganparts evaluate ... -o scores.json``. It writes
``ganparts/pretrained/painters/NAME`` in 16 bits and the painter's entry in ``painters.json``. With ``--address URL
--out FOLDER`` it writes FOLDER instead, for you to upload, and the entry says where to fetch it and its checksums.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from ganparts.data import sample
from ganparts.metrics import Scores
from ganparts.pretrained import ModelCard, from_pretrained, painters, save_pretrained
from ganparts.pretrained.finding import CONFIG, WEIGHTS
from ganparts.translate import translate


@dataclass(frozen=True)
class Ship:
    """A painter to be."""

    run: Annotated[str, tyro.conf.Positional]
    """Run folder or pretrained folder."""
    name: Annotated[str, tyro.conf.Positional]
    """Lower-case letters, digits and underscores."""
    title: str
    """What it paints, in a line."""
    data: str
    """What it was trained on."""
    license: str
    """Of the weights, as the Hub spells it: cc0-1.0, cc-by-4.0 ..."""
    command: str
    """Command that trained it."""
    scores: Path
    """JSON file that ganparts evaluate wrote."""
    text: str = ""
    """More paragraphs for the card."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Type of the weights on disk."""
    address: str | None = None
    """Folder on a server where it will be. None: it ships with the package."""
    out: Path | None = None
    """With an address, the folder to write."""


def ship(options: Ship) -> Path:
    """Write the painter's folder and its entry in the table; the folder.

    Raises:
        ValueError: the name is no plain word, or only one of ``address`` and ``out`` is given.
        FileNotFoundError: there is no such run or file of scores.
    """
    if not (options.name.isidentifier() and options.name.islower()):
        raise ValueError(f"the name {options.name!r}: use lower-case letters, digits and underscores")
    if (options.address is None) != (options.out is None):
        raise ValueError("--address and --out go together: the folder to upload, and where it will be")
    scores = Scores.read_json(options.scores).told()
    network = from_pretrained(options.run, kind="generator")
    folder = options.out or painters.FOLDER / options.name
    card = ModelCard(
        data=options.data,
        scores=scores,
        license=options.license,
        command=options.command,
        text="\n\n".join(filter(None, (options.title, options.text))),
    )
    save_pretrained(network, folder, card=card, dtype=getattr(torch, options.dtype), name=options.name)
    entry = {"title": options.title, "license": options.license, "data": options.data, "scores": scores}
    entry["files"] = {name: _facts(folder / name) for name in (CONFIG, WEIGHTS)}
    if options.address is not None:
        entry["address"] = options.address
    path = painters.FOLDER / painters.TABLE
    table = json.loads(path.read_text(encoding="utf-8")) | {options.name: entry}
    text = json.dumps(dict(sorted(table.items())), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return folder


def _facts(path: Path) -> dict[str, int | str]:
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def main() -> None:
    """Ship what the command line names, and tell its size and what rounding changed."""
    options = tyro.cli(Ship, description=__doc__)
    folder = ship(options)
    photo = sample() / "testA" / "pontduGard_0.jpg"
    before, after = (
        torch.tensor(list(translate(model, photo, precision="fp32").tobytes())) for model in (options.run, folder)
    )
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 2**20:.2f} MiB of weights in {options.dtype}")
    print(f"The greatest difference of a painting is {(before - after).abs().max()} of 255.")


if __name__ == "__main__":
    main()
