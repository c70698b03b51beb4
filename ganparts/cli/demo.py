"""``ganparts demo``: a page to try models on."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from ganparts.cli.app import Imports, app, console, import_parts, load_generator
from ganparts.precision import InferencePrecision

__all__ = ["demo", "name_models"]


@app.command
def demo(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL ...")],
    *,
    device: str = "auto",
    precision: InferencePrecision = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    megapixels: float = 1.0,
    megabytes: int = 20,
    waiting: int = 16,
    open: bool = False,
    imports: Imports = (),
) -> int:
    """Try models on a page in the browser: a photo and its paintings side by side (pip install 'ganparts[demo]').

    Examples: ganparts demo runs/first; ganparts demo monet.onnx runs/first owner/model --open

    Args:
        models: Run folders, pretrained folders, .onnx files, painters' names, names on the Hugging Face Hub.
        device: Device to compute on: auto, cpu, cuda, cuda:1 ...
        precision: Of the networks: fp32; bf16; auto: bf16 on CPUs that compute in it natively, if a network suits it.
        host: Address to serve at: 127.0.0.1 for this machine alone, 0.0.0.0 for everybody who can reach it.
        port: Port to serve at. None: the first free one from 7860.
        megapixels: Largest photo; larger ones are made smaller first.
        megabytes: Largest file; larger ones are refused.
        waiting: Number of photos that may wait for their turn.
        open: Open it in the browser.
        imports: Modules with parts of your own, to import first. Python looks for them on PYTHONPATH.
    """
    from ganparts.training import pick_device

    import_parts(imports)
    if not models:
        raise ValueError("no models: give run folders, pretrained folders, .onnx files or names on the Hub")
    if megabytes < 1:
        raise ValueError(f"--megabytes {megabytes}: it is at least 1")
    _check_address(host, port)
    chosen = pick_device(device)
    generators = {name: load_generator(model, device=chosen) for name, model in name_models(models).items()}
    with tempfile.TemporaryDirectory(prefix="ganparts-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and paintings; no other file is served
        from ganparts.demo import build_page

        page = build_page(generators, megapixels=megapixels, waiting=waiting, precision=precision)
        _, address, _ = page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            inbrowser=open,
            max_file_size=f"{megabytes}mb",
            share=False,
            show_error=True,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
        console.print(f"{', '.join(generators)}: {address} (Ctrl-C ends it)")
        try:
            while True:
                time.sleep(1)  # unlike an event's wait, Ctrl-C ends it on Windows, too
        except KeyboardInterrupt:
            page.close(verbose=False)
    return 0


def name_models(models: Sequence[str]) -> dict[str, str]:
    """Short names by which models can be told apart: of runs/first/generator "first", of monet.onnx "monet".

    Raises:
        ValueError: one is given twice.
    """
    named: dict[str, str] = {}
    for model in models:
        path = Path(model)
        if model in named.values():
            raise ValueError(f"{model} is given twice")
        name = short = (path.parent.name if path.name == "generator" else path.name.removesuffix(".onnx")) or model
        count = 1
        while name in named:
            count += 1
            name = f"{short} ({count})"
        named[name] = model
    return named


def _check_address(host: str, port: int | None) -> None:
    """Now, in one sentence, what the server would say after the models are loaded, in many.

    Raises:
        ValueError: this machine has no such address, or the port is taken or none.
    """
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"--port {port}: a port is from 1 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            if os.name == "posix":  # Windows would let two programs share the port
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        where = f"--host {host}" + (f" --port {port}" if port else "")
        raise ValueError(f"{where}: {error.strerror}; choose another, or leave both out") from None
