"""Inputs that a fuzzer finds by watching which lines run: for what this library parses in Python itself.

``benchmarks/fuzz.py`` damages whole files at random. Here atheris (``pip install atheris``) grows inputs that reach new
lines: messages in TFRecords, headers in tar files, addresses of data sets, parts with options. Each input is read, or
refused with the error that the function documents; anything else ends the run and shows the input. Run it from the
repository: ``python -m benchmarks.fuzz_guided --help``.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

# what is to be watched is imported by the fuzzer, so nothing here imports it before


@dataclass(frozen=True)
class Config:
    """Fuzz parsers."""

    targets: tuple[str, ...] = ("example", "tar", "address", "choice")
    """What reads the inputs."""
    runs: int = 100_000
    """Inputs of each."""
    seed: int = 0
    """Of the fuzzer."""
    out: Path = Path("benchmarks/results/cpu_fuzz_guided.json")
    """Where the record goes."""


def first_inputs(target: str) -> list[bytes]:
    """Whole inputs, which the fuzzer changes."""
    from benchmarks.mutations import example

    if target == "example":
        return [example(image=b"a picture"), example(image=b"", image_name=b"name")]
    if target == "tar":
        return [_tar(tarfile.USTAR_FORMAT, "a.png"), _tar(tarfile.PAX_FORMAT, "é" * 120 + ".jpg")]
    if target == "address":
        return [b"hf:owner/name(split=test, column=picture)", b"photos/*.parquet(buffer=50)"]
    return [b"resnet9(width=16),painter", b"unet256(dropout=False)", b"ugatit(light=True, img_size=64)"]


def _tar(format: int, name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        member = tarfile.TarInfo(name)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return file.getvalue()


def readers(path: Path) -> dict[str, Callable[[bytes], object]]:
    """What reads an input; it may write to ``path``."""
    from benchmarks.mutations import record
    from ganparts.adversarial.choices import parse_choice
    from ganparts.data.address import parse_address
    from ganparts.data.errors import DataError
    from ganparts.data.files import File
    from ganparts.data.tar import open_tar
    from ganparts.data.tfrecord import TFRecordError, read_examples
    from ganparts.registry import GENERATORS, UnknownPartError

    def read_message(data: bytes) -> None:
        path.write_bytes(record(data))
        with suppress(TFRecordError):
            list(read_examples(path))

    def read_tar(data: bytes) -> None:
        path.write_bytes(data)
        try:
            shard = open_tar(File(str(path), len(data)))
        except DataError:
            return
        for block in range(len(shard.counts)):
            with suppress(OSError, ValueError):
                shard.read(block)

    def read_address(data: bytes) -> None:
        with suppress(DataError):
            parse_address(data.decode("utf-8", "ignore").replace("\0", ""))

    def read_choice(data: bytes) -> None:
        with suppress(UnknownPartError, TypeError, ValueError):
            parse_choice(data.decode("utf-8", "ignore"), GENERATORS)

    return {"example": read_message, "tar": read_tar, "address": read_address, "choice": read_choice}


def fuzz(target: str, corpus: Path, arguments: list[str]) -> None:
    """Grow inputs in this process, which the fuzzer ends."""
    atheris: Any = import_module("atheris")  # which need not be installed
    with atheris.instrument_imports(include=["ganparts.data", "ganparts.adversarial", "tarfile"]):
        del sys.modules["tarfile"]
        read = readers(corpus.parent / "input")[target]
    warnings.simplefilter("ignore")
    atheris.Setup(["fuzz", str(corpus), *arguments], read)
    atheris.Fuzz()


def main(config: Config) -> int:
    import torch

    from benchmarks.record import write_json

    results, failed, console = [], False, Console(highlight=False)
    for target in config.targets:
        with tempfile.TemporaryDirectory() as name:
            corpus = Path(name) / "corpus"
            corpus.mkdir()
            for number, data in enumerate(first_inputs(target)):
                (corpus / str(number)).write_bytes(data)
            arguments = [f"-atheris_runs={config.runs}", f"-seed={config.seed + 1}", "-timeout=20", "-max_len=16384"]
            arguments.append(f"-artifact_prefix={name}/")
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.fuzz_guided", "--target", target, str(corpus), *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            lines = re.findall(r"cov: (\d+)", done.stderr)
            row = {
                "target": target,
                "inputs": config.runs,
                "kept": len(list(corpus.iterdir())),
                "edges": [int(lines[0]), int(lines[-1])] if lines else [],
                "failed": done.returncode != 0,
            }
        results.append(row)
        console.print(row)
        if done.returncode:
            failed = True
            console.print(done.stdout[-3000:], done.stderr[-3000:], markup=False)
    write_json(config.out, settings=vars(config), results=results, device=torch.device("cpu"))
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
    sys.exit(main(tyro.cli(Config, description=__doc__)))
