"""A page to try generators on: drop a photo, see its painting beside it, choose its strength, download it.

Made with gradio (``pip install 'ganparts[demo]'``). ``ganparts demo`` serves it on this machine; :func:`build_page`
makes it for a server, or a Hugging Face Space, of your own.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganparts.data import decode_image, resize
from ganparts.optional import require
from ganparts.precision import InferencePrecision, choose_inference
from ganparts.pretrained import as_generator
from ganparts.translate import translate

if TYPE_CHECKING:
    import gradio

__all__ = ["blend", "build_page", "fit_pixels"]

_REMEMBERED = 16  # photos, and paintings, that need not be computed again when only the strength changes
_AGE, _LOOK = 3600, 300  # seconds until uploads and paintings are deleted, and between two looks for such
_MOST_PIXELS = 64_000_000  # of a file, decoded before it is made smaller: 200 MB and as much again


def blend(photo: Tensor, painting: Tensor, strength: float) -> Tensor:
    """A painting laid over its photo.

    Args:
        photo: uint8 [3, H, W].
        painting: likewise.
        strength: from 0, the photo, to 1, the painting.
    """
    return photo.float().lerp(painting.float(), strength).round().to(torch.uint8)


def fit_pixels(photo: Tensor, pixels: float) -> Tensor:
    """A photo made smaller to at most so many pixels, its aspect kept: uint8 [3, H, W]; else as it is."""
    height, width = photo.shape[-2:]
    if height * width <= pixels:
        return photo
    factor = (pixels / (height * width)) ** 0.5
    return resize(photo, (max(1, int(height * factor)), max(1, int(width * factor))))


def build_page(
    models: Mapping[str, Callable[[Tensor], Tensor] | Path | str],
    *,
    megapixels: float = 1.0,
    waiting: int = 16,
    precision: InferencePrecision = "auto",
) -> gradio.Blocks:
    """The page, to be launched or mounted as gradio's pages are.

    Args:
        models: generators in ``eval()`` mode, or what ``from_pretrained`` takes, by the names that the page gives them.
        megapixels: photos of more are made smaller first.
        waiting: how many photos may wait for their turn, since one is painted at a time; more are turned away.
        precision: of the networks, as in :func:`ganparts.translate.translate`.

    Raises:
        ImportError: gradio is not installed.
        ValueError: there are no models, a limit is not positive, or a model cannot compute in that precision.
    """
    gr = require("gradio", "gradio", "demo", what="the page")
    if not models:
        raise ValueError("no models: give at least one generator")
    if not megapixels > 0 or waiting < 1:
        raise ValueError(f"megapixels={megapixels}, waiting={waiting}: both are more than 0")

    generators = {name: as_generator(model) for name, model in models.items()}
    for generator in generators.values():
        choose_inference(generator, precision)  # refuses now, not at the first photo

    painter = _Painter(generators, megapixels * 1e6, precision)

    def show(path: str | None, chosen: list[str], percent: float) -> Iterator[dict[Any, Any]]:
        """Each chosen model's column, as soon as it is painted."""
        shown = {column: gr.update(visible=name in chosen) for name, (column, _, _) in columns.items()}
        for _, slider, button in columns.values():
            shown |= {slider: gr.update(value=None), button: gr.update(value=None, interactive=False)}
        if path is None:
            yield shown
            return
        try:
            photo, smaller = painter.photo(path)
        except (ValueError, OSError) as error:
            gr.Warning(f"{Path(path).name} cannot be read: {_reason(error)}")
            yield shown
            return
        if smaller:
            gr.Info(f"The photo was made smaller, to {photo.shape[-1]} x {photo.shape[-2]} pixels.")
        with tempfile.TemporaryDirectory() as folder:  # gradio has its own copies when it goes on after a yield
            before = _save(photo, Path(folder) / "photo.jpg")
            for name in (name for name in models if name in chosen):
                _, slider, button = columns[name]
                called = re.sub(r"[^\w.-]+", "_", f"{Path(path).stem[:60]}_{name[-60:]}") + ".jpg"
                try:
                    after = _save(blend(photo, painter.painting(path, name), percent / 100), Path(folder) / called)
                except (ValueError, RuntimeError, OSError) as error:
                    gr.Warning(f"{name}: {_reason(error)}")
                    continue
                shown |= {slider: gr.update(value=(before, after)), button: gr.update(value=after, interactive=True)}
                yield shown
            yield shown

    columns: dict[str, tuple[gradio.Column, gradio.ImageSlider, gradio.DownloadButton]] = {}
    with gr.Blocks(title="ganparts", analytics_enabled=False, delete_cache=(_LOOK, _AGE)) as page:
        gr.Markdown("# Photo to painting\nDrop a photo; drag the line across a picture to compare the two.")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                photo = gr.Image(label="Photo", type="filepath", height=320, buttons=[])
                photo.preprocess = _path  # the file as it was uploaded, for our decoder and its reasons
                chosen = gr.CheckboxGroup(list(models), value=list(models), label="Models", visible=len(models) > 1)
                strength = gr.Slider(0, 100, value=100, step=5, label="Strength of the painting, %")
            with gr.Column(scale=3), gr.Row():
                for name in models:
                    with gr.Column(min_width=240) as column:
                        slider = gr.ImageSlider(label=name, type="filepath", interactive=False, buttons=["fullscreen"])
                        button = gr.DownloadButton("Download", size="sm", interactive=False)
                    columns[name] = (column, slider, button)
        for part in (photo, chosen, strength):
            _refuse_addresses(part, gr.Error)
        gr.on(
            [photo.change, chosen.change, strength.change],
            show,
            [photo, chosen, strength],
            [part for parts in columns.values() for part in parts],
            concurrency_limit=1,
            trigger_mode="always_last",
            api_visibility="private",
        )
    page.queue(max_size=waiting)
    return page


class _Painter:
    """Photos and their paintings, the last of which are remembered as long as their files are there.

    Args:
        models: by name.
        pixels: that a photo is made smaller to.
        precision: of the models.
    """

    def __init__(self, models: Mapping[str, Callable[[Tensor], Tensor]], pixels: float, precision: InferencePrecision):
        self.models, self.pixels = models, pixels
        self.precision: InferencePrecision = precision
        self._photo, self._painting = lru_cache(_REMEMBERED)(self._read), lru_cache(_REMEMBERED)(self._paint)

    def photo(self, path: str) -> tuple[Tensor, bool]:
        """uint8 [3, H, W], and whether it was made smaller.

        Raises:
            ValueError: it cannot be read, or was deleted.
            OSError: likewise.
        """
        if not Path(path).is_file():
            self._photo.cache_clear()
            self._painting.cache_clear()
            raise ValueError("it was deleted, since an hour went by: drop it again")
        return self._photo(path)

    def painting(self, path: str, name: str) -> Tensor:
        """uint8 [3, H, W], by the model of that name; raises whatever a model may."""
        return self._painting(path, name)

    def _read(self, path: str) -> tuple[Tensor, bool]:
        decoded = decode_image(Path(path).read_bytes(), max_pixels=_MOST_PIXELS)
        photo = fit_pixels(decoded, self.pixels)
        return photo, photo is not decoded

    def _paint(self, path: str, name: str) -> Tensor:
        model = self.models[name]
        tile = None if getattr(model, "tileable", True) else 0
        return translate(model, self._photo(path)[0], tile=tile, precision=self.precision)


def _refuse_addresses(part: Any, error: type[Exception]) -> None:
    """Take uploads alone: gradio would fetch an address that a program sends in a file's place, however large."""
    move = part.async_move_resource_to_block_cache

    async def move_upload(path: str | Path | None) -> str | None:
        if str(path).startswith(("http://", "https://")):
            raise error("upload the photo itself, not its address")
        return await move(path)

    part.async_move_resource_to_block_cache = move_upload


def _reason(error: Exception) -> str:
    """Without the server's paths, which an operating system's errors say."""
    return str(getattr(error, "strerror", None) or error)


def _path(payload: Any) -> str | None:
    return None if payload is None else payload.path


def _save(picture: Tensor, path: Path) -> str:
    from torchvision.transforms.v2.functional import to_pil_image

    to_pil_image(picture).save(path, quality=95)
    return str(path)
