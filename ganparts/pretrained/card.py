"""The model card of a pretrained folder: the ``README.md`` that the Hugging Face Hub shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["ModelCard"]


@dataclass(frozen=True)
class ModelCard:
    """What a folder's reader should know beyond what the network says of itself."""

    preset: str | None = None
    """The preset that it was trained with."""
    data: str | None = None
    """The data that it was trained on."""
    steps: int | None = None
    """Number of training steps."""
    scores: Mapping[str, float | str] = field(default_factory=dict)
    """Names of scores and their values, with the extractor and the images that they were taken on."""
    license: str = "unknown"
    """License of the weights, as the Hub spells it (``apache-2.0``, ``cc-by-4.0``, ...)."""
    tags: tuple[str, ...] = ()
    """Tags to add to those that every card has."""
    picture: Path | None = None
    """An image file to show, which is copied into the folder."""
    command: str | None = None
    """Command that trained it, to do so again."""
    text: str = ""
    """Paragraphs of your own, in Markdown."""

    def render(self, config: Mapping[str, Any], *, parameters: int, name: str, stored: str | None = None) -> str:
        """The card of a network, as Markdown with a YAML header.

        Args:
            config: kind, name and options of the network, and the module that registers it if it is not ours.
            parameters: how many the network has.
            name: folder, painter's name or name on the Hub that it is loaded from.
            stored: the type of the weights on disk, if it was chosen.
        """
        from huggingface_hub import ModelCardData

        header = ModelCardData(
            library_name="ganparts",
            license=self.license,
            pipeline_tag="image-to-image" if config["kind"] == "generator" else None,
            tags=["ganparts", "gan", "image-to-image", str(config["name"]), *self.tags],
        )
        picture = f"![Sample]({self._picture_name})" if self.picture is not None else ""
        parts = (
            f"# {Path(name).name}",
            picture,
            f"A {config['kind']} made with ganparts, a library of GAN parts for image translation with PyTorch.",
            self.text,
            _table("", self._facts(config, parameters, stored)),
            _table("## Scores", self.scores),
            f"## How to load it\n\n```python\n{_example(config, name)}\n```",
            f"## How to train it\n\n```bash\n{self.command}\n```" if self.command else "",
        )
        return f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"

    def copy_picture(self, folder: Path) -> None:
        """Put the picture into the folder.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if self.picture is None:
            return
        if not self.picture.is_file():
            raise FileNotFoundError(f"the card's picture {self.picture} is not a file: give an image file, or none")
        (folder / self._picture_name).write_bytes(self.picture.read_bytes())

    @property
    def _picture_name(self) -> str:
        return f"sample{self.picture.suffix.lower()}" if self.picture is not None else ""

    def _facts(self, config: Mapping[str, Any], parameters: int, stored: str | None) -> dict[str, str]:
        options = ", ".join(f"{option}={value!r}" for option, value in config["options"].items())
        facts = {
            "part": f"`{config['name']}`",
            "options": f"`{options}`" if options else "those that it has by itself",
            "parameters": f"{parameters:,}",
            "weights": f"{stored} on disk, float32 when loaded" if stored else "",
            "preset": f"`{self.preset}`" if self.preset else "",
            "data": self.data or "",
            "steps": "" if self.steps is None else f"{self.steps:,}",
        }
        return {name: fact for name, fact in facts.items() if fact}


def _table(title: str, rows: Mapping[str, float | str]) -> str:
    if not rows:
        return ""
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join([*([title, ""] if title else []), "| | |", "|---|---|", *lines])


def _cell(value: float | str) -> str:
    """One line, whose bars are no borders."""
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _example(config: Mapping[str, Any], name: str) -> str:
    lines = [f"import {config['module']}  # registers {config['name']!r}\n"] if "module" in config else []
    lines += ["from ganparts import from_pretrained"]
    if config["kind"] == "generator":
        lines += ["from ganparts.translate import translate", ""]
        lines += [f'translate(from_pretrained("{name}"), "photo.jpg").save("painting.jpg")']
    else:
        lines += ["", f'logits = from_pretrained("{name}")(images)  # float [B, C, H, W] in [-1, 1]']
    return "\n".join(lines)
