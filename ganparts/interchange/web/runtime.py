"""ONNX Runtime Web, which runs the model in a browser: which files a page needs, and where they come from.

The version is fixed, and so is each file's hash: a page that loads them from a content network runs nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

__all__ = ["PACKAGE", "SOURCES", "copied", "fetched"]

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
"""As npm names it."""
SOURCES = (f"https://cdn.jsdelivr.net/npm/{PACKAGE}/dist/", f"https://unpkg.com/{PACKAGE}/dist/")
"""Where a page finds the files of the package; the second if the first fails."""

_FILES = {  # for each way of computing, the program and its binary: name, bytes, hash
    "webgpu": (
        (
            "ort.webgpu.bundle.min.mjs",
            117732,
            "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f",
        ),
        (
            "ort-wasm-simd-threaded.asyncify.wasm",
            26781914,
            "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
        ),
    ),
    "wasm": (
        (
            "ort.wasm.bundle.min.mjs",
            73054,
            "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
        ),
        (
            "ort-wasm-simd-threaded.wasm",
            14239897,
            "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
        ),
    ),
}


def fetched() -> dict[str, Any]:
    """What the page must know to load the files from a content network."""
    files = {
        way: [{"name": name, "bytes": size, "integrity": integrity} for name, size, integrity in each]
        for way, each in _FILES.items()
    }
    return {"folders": list(SOURCES), "files": files}


def copied(source: Path, folder: Path) -> dict[str, Any]:
    """Copy the files into ``folder``/runtime; what the page must know to load them from there.

    Args:
        source: the unpacked npm package, its ``dist``, or any folder with these files, of any version.
        folder: of the page.

    Raises:
        FileNotFoundError: a file is missing.
    """
    names = [name for each in _FILES.values() for name, _, _ in each]
    places = [place for place in (source, source / "dist", source / "package" / "dist") if (place / names[0]).is_file()]
    place = places[0] if places else source
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source} lacks {', '.join(missing)} of onnxruntime-web: get the package with `npm pack {PACKAGE}`, "
            "unpack it, and give its folder"
        )
    (folder / "runtime").mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(place / name, folder / "runtime" / name)
    files = {
        way: [{"name": name, "bytes": (place / name).stat().st_size, "integrity": None} for name, _, _ in each]
        for way, each in _FILES.items()
    }
    return {"folders": ["runtime/"], "files": files}
