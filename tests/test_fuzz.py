"""Damaged and hostile files: each is read, or refused in a sentence that names it, and nothing else happens."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import re
import resource
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

if sys.platform == "win32":
    pytest.skip("forks, and limits memory, as Windows cannot", allow_module_level=True)

from benchmarks import fuzz
from benchmarks.mutations import (
    INTEGERS,
    OWNED,
    WHOLE,
    WRITERS,
    Evil,
    bomb,
    example,
    record,
    run_of_a_checkpoint,
    safetensors_of,
    zip_entries,
    zip_of,
)
from ganparts import DISCRIMINATORS, GENERATORS
from ganparts.data import ImageEntry, UnreadableImageError, decode_image, open_images
from ganparts.discriminators import PatchGAN
from ganparts.generators import ResNetGenerator, UNetGenerator
from ganparts.interchange import from_junyanz, save_pretrained
from ganparts.training import load_checkpoint, save_checkpoint

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Reads what a function writes, in a process that may take little more memory; the text of the refusal."""

    def read(kind: str, write: Callable[[Path], object], mebibytes: int = 200) -> str:
        fuzz.read_whole(kind)
        monkeypatch.setitem(WRITERS, kind, lambda rng, folder: write(folder))
        (outcome,) = fuzz.fuzz(fuzz.Config(seconds=30, mebibytes=mebibytes), kind, [0])
        assert outcome.verdict == "refused", outcome
        return outcome.reason

    return read


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files_are_read_or_refused(kind: str):
    fuzz.read_whole(kind)
    outcomes = list(fuzz.fuzz(fuzz.Config(seed=1, seconds=60), kind, list(range(60))))
    assert len(outcomes) == 60
    assert [outcome for outcome in outcomes if outcome.verdict == "failed"] == []
    assert Counter(outcome.verdict for outcome in outcomes)["refused"] > 20


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (lambda folder: os.kill(os.getpid(), 9), "the process ended with -9"),
        (lambda folder: [None for _ in iter(int, 1)], "it took more than 1 s|MemoryError"),
        (lambda folder: bytearray(2**40), "MemoryError escaped"),
        (lambda folder: decode_image(bytes(2**40)), "MemoryError escaped"),
        (lambda folder: os.mkdir(folder / OWNED), "it did os.mkdir"),
        (lambda folder: os.system("true"), "it did os.system"),
        (lambda folder: {}["x"], "KeyError escaped"),
        (lambda folder: int("x"), "it does not name the file"),
        (lambda folder: open_images(f"{folder}\n"), "are no sentence"),
    ],
)
def test_the_fuzzer_sees_what_goes_wrong(monkeypatch: pytest.MonkeyPatch, does: Callable[[Path], Any], reason: str):
    monkeypatch.setitem(fuzz.READERS, "image", does)
    (bad,) = fuzz.fuzz(fuzz.Config(seconds=1), "image", [0])
    assert bad.verdict == "failed"
    assert re.search(reason, bad.reason)


def test_the_fuzzer_has_a_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    out = tmp_path / "new" / "fuzz.json"
    arguments = ["fuzz", "--count", "6", "--kinds", "image", "tfrecord", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert fuzz.main() == 0
    rows = json.loads(out.read_text())["results"]
    assert [row["kind"] for row in rows] == ["image", "tfrecord"]
    assert all(row["read"] + row["refused"] == 3 and row["failed"] == 0 for row in rows)
    monkeypatch.setitem(fuzz.READERS, "image", lambda folder: next(folder.glob("x*")).unlink(missing_ok=False))
    monkeypatch.setattr(fuzz, "read_whole", lambda kind: None)
    monkeypatch.setattr(sys, "argv", [*arguments, "--only", "4"])
    assert fuzz.main() == 1
    assert "--kinds image --seed 0 --only 4: it did os.remove" in capsys.readouterr().out
    (failure,) = json.loads(out.read_text())["results"][0]["failures"]
    assert failure["number"] == 4


def test_the_same_seed_makes_the_same_file(tmp_path: Path):
    for kind in ("image", "tfrecord", "config"):
        made = []
        for name in ("one", "two"):
            folder = tmp_path / kind / name
            folder.mkdir(parents=True)
            WRITERS[kind](random.Random(7), folder)
            made.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert made[0] == made[1]


# --- images


def png_header(side: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    end = b"IDAT" + zlib.compress(bytes(100))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, end, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp_header(side: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 200, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(200)


def tiff_header(side: int) -> bytes:
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: side, 279: side * side % 2**32}
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + fields + bytes(200)


@pytest.mark.parametrize("header", [png_header, bmp_header, tiff_header])
def test_a_picture_that_claims_100000_by_100000_pixels_takes_no_memory(refused: Refused, header: Any):
    text = refused("image", lambda folder: (folder / "x.png").write_bytes(header(100_000)))
    assert re.search(r"x\.png: it claims 10,000,000,000 pixels, and more than 178,956,970 are not read", text)


@pytest.mark.parametrize("header", [png_header, bmp_header, tiff_header])
def test_the_limit_holds_whatever_a_program_made_of_pillows(monkeypatch: pytest.MonkeyPatch, header: Any):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ValueError, match=r"claims 100000 x 100000 pixels, and more than 178,956,970 are not read"):
        decode_image(header(100_000))
    with pytest.raises(ValueError, match=r"claims 13378 x 13378 pixels"):
        decode_image(header(13_378))
    assert Image.MAX_IMAGE_PIXELS is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"claims 10,000 pixels, and more than 20 are not read"):
        decode_image(header(100))
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_postscript_program_is_not_run(refused: Refused):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    text = refused("image", lambda folder: (folder / "x.jpg").write_bytes(buffer.getvalue()))
    assert "x.jpg: it is a PostScript program, which is not run: save it as PNG or JPEG" in text


def sparse(path: Path, size: int, start: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def test_pipes_and_enormous_files_are_not_read(refused: Refused, tmp_path: Path):
    assert "x.png: it is not a file but a folder" in refused("image", lambda folder: os.mkfifo(folder / "x.png"))
    assert "x.tfrec is not a file but" in refused("tfrecord", lambda folder: os.mkfifo(folder / "x.tfrec"))
    text = refused("image", lambda folder: sparse(folder / "x.png", 2**40))
    assert "x.png: it has 1,099,511,627,776 bytes, more than the 2,147,483,647 that are read" in text
    (tmp_path / "y.png").mkdir()
    with pytest.raises(UnreadableImageError, match="not a file but a folder"):
        ImageEntry("y", tmp_path / "y.png").load()


# --- TFRecords


@pytest.mark.parametrize("claimed", [n for n in INTEGERS if n > 1000])
def test_a_record_of_any_claimed_length_takes_no_memory(refused: Refused, claimed: int):
    text = refused("tfrecord", lambda folder: (folder / "x.tfrec").write_bytes(record(b"short", claimed)))
    assert re.search(rf"x\.tfrec, record 0 .*: it claims {claimed} bytes, but the file ends before", text)


def test_a_record_that_is_as_long_as_it_claims_may_still_be_too_long(refused: Refused):
    start = record(b"", 2**39)[:12]
    text = refused("tfrecord", lambda folder: sparse(folder / "x.tfrec", 2**40, start))
    assert re.search(r"record 0 .*: it claims 549,755,813,888 bytes, and a tf\.train\.Example has at most 2,147,", text)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (b"a/b/cat.jpg", "cat"),
        (b"..\\..\\evil.png", "evil"),
        (b"C:\\evil.png", "evil"),
        (b"a\0b\x1b[2J\n.jpg", "ab_[2J_"),
        (b"\xff" + b"x" * 70_000, "\ufffd" + "x" * 99),
        (b"..", ".."),
        (b"", "r_0"),
    ],
)
def test_a_records_image_gets_a_name_that_any_archive_takes(tmp_path: Path, name: bytes, stem: str):
    (tmp_path / "r.tfrec").write_bytes(record(example(image_name=name, image=b"x")))
    assert [entry.name for entry in open_images(tmp_path).entries] == [stem]


def test_features_of_odd_names_make_no_long_sentence(refused: Refused):
    data = record(example(**{f"a\n{i}": b"" for i in range(9999)}))
    assert "no bytes feature 'image', only a 0, a 1" in refused(
        "tfrecord", lambda folder: (folder / "x.tfrec").write_bytes(data)
    )


# --- checkpoints


class Calls:
    """Unpickled, it calls a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


def saved_by(folder: Path, **changes: Any) -> dict[str, Any]:
    WHOLE["checkpoint"](folder)
    return torch.load(folder / "checkpoint.pt", weights_only=True) | changes


@pytest.mark.parametrize("how", range(3))
@pytest.mark.parametrize("place", ["step", "config", "states", "random", "pickled", "old"])
def test_a_checkpoint_runs_no_code(refused: Refused, place: str, how: int):
    def write(folder: Path) -> None:
        path, evil = folder / "checkpoint.pt", Evil(folder, how)
        if place == "pickled":
            path.write_bytes(pickle.dumps(evil))
        elif place == "old":
            torch.save(saved_by(folder, config=evil), path, _use_new_zipfile_serialization=False)
        else:
            torch.save(saved_by(folder, **{place: {"model": evil}}), path)

    assert "checkpoint.pt is not a checkpoint that can be read" in refused("checkpoint", write)


def test_evil_pickles_would_run_if_they_were_let(tmp_path: Path):
    for how in range(3):
        pickle.loads(pickle.dumps(Evil(tmp_path, how)))
        assert (tmp_path / OWNED).is_dir()
        (tmp_path / OWNED).rmdir()


@pytest.mark.parametrize("place", ["data.pkl", "data/0", "other"])
def test_a_checkpoint_that_unpacks_to_gigabytes_is_refused(refused: Refused, place: str):
    def write(folder: Path) -> None:
        WHOLE["checkpoint"](folder)
        path = folder / "checkpoint.pt"
        entries = [e for e in zip_entries(path.read_bytes()).items() if not e[0].endswith(f"/{place}")]
        prefix = entries[0][0].split("/")[0]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in entries:
                archive.writestr(name, content)
            with archive.open(f"{prefix}/{place}", "w", force_zip64=True) as entry:
                for _ in range(32):
                    entry.write(bytes(2**23))
        assert path.stat().st_size < 3e6

    text = refused("checkpoint", write, mebibytes=100)
    assert re.search(r"checkpoint\.pt is not a .*: it has .* bytes, but claims to hold 268,", text)


def test_a_compressed_checkpoint_is_refused(refused: Refused):
    def write(folder: Path) -> None:
        WHOLE["checkpoint"](folder)
        entries = list(zip_entries((folder / "checkpoint.pt").read_bytes()).items())
        padding = bytes(2**20)  # an archive may begin anywhere, so that its file is as long as it claims
        (folder / "checkpoint.pt").write_bytes(padding + zip_of(entries, zipfile.ZIP_DEFLATED))

    assert "it is compressed, which torch.save does not do" in refused("checkpoint", write)


def test_an_error_without_words_is_named(tmp_path: Path):
    whole = zip_of([("x/data.pkl", b"short")])
    start = whole.rindex(b"PK\x01\x02")  # the directory: there it claims to be longer than the file goes on
    whole = whole[: start + 20] + struct.pack("<II", 999, 999) + whole[start + 28 :]
    (tmp_path / "c.pt").write_bytes(bytes(2**12) + whole)
    with pytest.raises(ValueError, match=r"c\.pt is not a checkpoint that can be read: \w"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_storage_that_claims_more_than_is_there_is_not_read(refused: Refused):
    def write(folder: Path) -> None:
        path = folder / "checkpoint.pt"
        torch.save(saved_by(folder, states=torch.arange(54_321.0)), path)
        entries = zip_entries(path.read_bytes())
        (name,) = (name for name in entries if name.endswith("data.pkl"))
        count = b"M" + struct.pack("<H", 54_321)
        assert entries[name].count(count) == 2  # the storage's, and the tensor's
        entries[name] = entries[name].replace(count, b"J" + struct.pack("<i", 2**30))
        path.write_bytes(zip_of(list(entries.items())))

    assert "checkpoint.pt is not a checkpoint that can be read" in refused("checkpoint", write)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"states": torch.zeros(1).expand(10**5, 10**5)}, r"shape \[100000, 100000\] claims more than is stored"),
        ({"states": {"model": torch.zeros(2**40, device="meta")}}, "it would call 'torch._utils _rebuild_meta"),
        ({"states": torch.ones(4).to_sparse()}, "it would call 'torch._utils _rebuild_sparse_tensor'"),
        ({"config": bomb()}, "holds more than 1,000,000 values, or some that hold one another"),
        ({"config": Calls(bytearray, 10**10)}, "it would call '__builtin__ bytearray', which no state needs"),
        ({"step": -1}, "its states, step or configuration are of another kind: -1"),
        ({"step": "3"}, "of another kind: '3'"),
        ({"step": None}, "of another kind: None"),
        ({"config": [1]}, r"of another kind: 3, \[1\]"),
        ({"states": []}, "of another kind"),
        ({"states": {}}, "was saved with other options; its model does not fit: 'model'"),
        ({"states": {"model": 3}}, "its model does not fit: Expected state_dict to be dict-like"),
        ({"states": {"model": {3: 4}}}, "its model does not fit"),
        ({"random": None}, "holds no random states that can be put back|not a checkpoint that can be read"),
        ({"random": {"python": bomb()}}, "holds more than 1,000,000 values"),
        ({"random": {"python": [3, [1], None]}}, "holds no random states that can be put back: state vector"),
        ({"format": torch.ones(2)}, "not a checkpoint that can be read: Boolean value of Tensor"),
    ],
)
def test_a_checkpoint_of_odd_values_is_refused(refused: Refused, changes: dict[str, Any], reason: str):
    text = refused("checkpoint", lambda folder: torch.save(saved_by(folder, **changes), folder / "checkpoint.pt"))
    assert re.search(rf"checkpoint\.pt .*{reason}", text)


def test_values_without_end_are_refused(refused: Refused):
    endless: list[Any] = []
    endless.append(endless)
    text = refused("checkpoint", lambda folder: torch.save(saved_by(folder, config=endless), folder / "checkpoint.pt"))
    assert "checkpoint.pt is not a checkpoint that can be read: maximum recursion" in text


def test_an_optimizer_of_odd_values_is_refused(refused: Refused):
    def write(folder: Path) -> None:
        saved = saved_by(folder)
        saved["states"]["optimizers"]["generators"]["param_groups"] = 3
        torch.save(saved, folder / "checkpoint.pt")

    assert "its optimizers does not fit: 'int' object is not iterable" in refused("checkpoint", write)


def test_a_directory_of_an_archive_that_points_nowhere_is_refused_by_name(tmp_path: Path):
    # the entry then begins before the file, where the system says "Invalid argument" without the file's name
    whole = zip_of([("x/data.pkl", pickle.dumps({}))])
    (size, offset) = struct.unpack("<II", whole[-10:-2])
    (tmp_path / "c.pt").write_bytes(whole[:-10] + struct.pack("<II", size, offset + 2**20) + whole[-2:])
    with pytest.raises(ValueError, match=r"c\.pt is not a checkpoint that can be read"):
        load_checkpoint(tmp_path / "c.pt")


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path: Path):
    def go_on() -> None:
        run = run_of_a_checkpoint()
        WHOLE["checkpoint"](tmp_path)
        load_checkpoint(tmp_path / "checkpoint.pt", **run)
        with (tmp_path / "checkpoint.pt").open("r+b") as file:
            file.truncate(0)  # a mapped tensor would end the process here
        save_checkpoint(tmp_path / "checkpoint.pt", step=4, config={}, **run)
        assert load_checkpoint(tmp_path / "checkpoint.pt", **run)[0] == 4

    process = multiprocessing.get_context("fork").Process(target=go_on)
    process.start()
    process.join(60)
    assert process.exitcode == 0


# --- pretrained folders


def pretrained(folder: Path, config: Any = None, *, weights: bytes | None = None, **options: Any) -> None:
    save_pretrained(DISCRIMINATORS.create("patchgan", width=2), folder)
    if config is None and options:
        config = {"kind": "discriminator", "name": "patchgan", "options": options}
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"width": "64"}, "config.json describes no network that can be built"),
        ({"width": 64.0}, "config.json describes no network that can be built"),
        ({"width": -1}, "can be built: width=-1: give a whole number"),
        ({"width": None}, "config.json describes no network that can be built"),
        ({"width": [64]}, "config.json describes no network that can be built"),
        ({"width": 4096}, "model.safetensors does not hold the weights of 'patchgan' .* numbers, but it holds"),
        ({"width": 10**6}, "model.safetensors does not hold .* those are 672,.* numbers, but it holds"),
        ({"width": 10**9}, "config.json describes no network that can be built: .*overflow|those are"),
        ({"width": 10**30}, "config.json describes no network that can be built"),
        ({"width": 2, "layers": 10**9}, "can be built: layers=1000000000: a PatchGAN has at most 16"),
        ({"width": 2, "layers": 1e6}, "can be built"),
        ({"width": 2, "blocks": 1e6}, "can be built: the discriminator 'patchgan' has no option 'blocks'"),
        ({"width": 2, "norm": "x" * 10_000}, "can be built"),
        ({"width": 2, "norm": ["instance"]}, "can be built: unhashable"),
        ({"width": 2, "name": "pixel"}, "can be built: the discriminator 'patchgan' has no option 'name'"),
        ({"width": 2, "x" * 10_000: 1}, "can be built"),
    ],
)
def test_options_of_wrong_kinds_are_refused_before_they_take_memory(refused: Refused, options: Any, reason: str):
    text = refused("config", lambda folder: pretrained(folder, **{"config": None, **options}))
    assert re.search(reason, text)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"kind": "painter", "name": "patchgan", "options": {}}, "does not describe a network: KeyError.'painter'"),
        ({"kind": ["generator"], "name": "patchgan", "options": {}}, "does not describe a network"),
        ({"kind": "discriminator", "name": ["patchgan"], "options": {}}, "its name is not a text"),
        ({"kind": "discriminator", "name": "patchgan", "options": [["width", 2]]}, "its options are not an object"),
        ({"kind": "discriminator", "name": "x" * 9000, "options": {}}, "config.json: .*"),
        ({"kind": "generator", "name": "resnet9_antialias", "options": {"width": 0}}, "width=0: give a whole number"),
        ({"kind": "discriminator", "name": "patchgun", "options": {}}, "config.json: .*did you mean 'patchgan'"),
        ([], "does not describe a network"),
        ("[" * 200_000, "does not describe a network: RecursionError"),
        ("9" * 6000, "does not describe a network"),
        ("\ufeff{}", "does not describe a network"),
        (" " * (2**20 + 1), "it has 1,048,577 bytes, more than the 1,048,576 that are read"),
    ],
)
def test_odd_configurations_are_refused_by_name(refused: Refused, config: Any, reason: str):
    assert re.search(reason, refused("config", lambda folder: pretrained(folder, config)))


def test_a_part_of_ones_own_may_not_grow_without_end(refused: Refused):
    @GENERATORS.register("endless")
    def endless(*, blocks: int = 1) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(blocks)))

    config = {"kind": "generator", "name": "endless", "options": {"blocks": 10**9}}
    try:
        text = refused("config", lambda folder: pretrained(folder, config))
    finally:
        GENERATORS.remove("endless")
    assert "config.json describes no network that can be built: it has more than 1,100 parameters, far more" in text


def claims(shape: list[int], offsets: list[int]) -> bytes:
    return safetensors_of({"net.0.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}, bytes(16))


@pytest.mark.parametrize(
    "weights",
    [
        *(safetensors_of(b"{}", b"", n) for n in INTEGERS),
        claims([2**40], [0, 2**42]),
        claims([2**40], [0, 16]),
        claims([2**62, 4], [0, 16]),
        claims([2**63, 2], [0, 16]),
        claims([0, 2**62], [0, 0]),
        safetensors_of(b"[" * 10**5, b""),
        pickle.dumps(Evil(Path("nowhere"))),
        b"",
    ],
)
def test_weights_that_claim_terabytes_take_no_memory(refused: Refused, weights: bytes):
    text = refused("config", lambda folder: pretrained(folder, weights=weights))
    assert "model.safetensors does not hold the weights of 'patchgan' with {'width': 2}" in text


def test_evil_pickles_in_a_pretrained_folder_do_not_run(refused: Refused):
    for how in range(3):
        refused("config", lambda folder: pretrained(folder, weights=pickle.dumps(Evil(folder, how))))  # noqa: B023
        refused("config", lambda folder: pretrained(folder, pickle.dumps(Evil(folder, how), 0).decode()))  # noqa: B023


# --- published weights


def resnet(**changes: Any) -> dict[Any, Any]:
    return {**ResNetGenerator(width=2, blocks=1).state_dict(), **changes}


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({3: torch.ones(1)}, "3 is not the name of a tensor"),
        ({"state_dict": resnet()}, "'state_dict' is not a tensor but dict"),
        ({"net.0.weight": torch.ones(2, dtype=torch.int64)}, "holds no floating-point numbers but torch.int64"),
        ({"net.0.weight": torch.ones(2).to_sparse()}, "holds no floating-point numbers but .*sparse"),
        ({"net.0.weight": torch.zeros(1).expand(10**5, 10**5, 1, 1)}, r"claims the shape \[100000, 100000, 1, 1\]"),
        ({"net.0.weight": torch.ones(())}, "names of a network, but do not fit one"),
        ({"net.0.weight": torch.ones(2, 3, 1, 1)}, "names of a network, but do not fit one: 'net.5.weight'"),
        ({"net.0.weight": torch.ones(10**5, 1, 1, 1), "net.5.weight": torch.ones(10**5)}, "do not fit one"),
        ({"model.0.weight": torch.ones(())}, "no ResNet or U-Net generator and no PatchGAN"),
        ({"model.0.weight": torch.ones(2, 3, 4, 4)}, "do not fit one"),
        (
            {"model.model.0.weight": torch.ones(2, 3, 4, 4), "model.model.3.weight": torch.ones(4, 3, 4, 4)}
            | {"model." * 5000 + "weight": torch.ones(1)},
            "do not fit one: levels=4999: a U-Net has at most 16",
        ),
        (resnet(**{"model.1.weight": torch.ones(30_000, 3, 7, 7)}), "look like a ResNetGenerator, but do not fit one"),
        (resnet(**{"model.1.bias": torch.ones(2, device="meta")}), "on the meta device, without numbers"),
        (resnet(**{"model.٣.conv_block.1.weight": torch.ones(1)}), "do not fit one"),
        (
            resnet(**{f"model.{i}.conv_block.1.weight": torch.ones(1) for i in range(30, 999)}),
            "they are of 970 residual blocks, and",
        ),
        ({f"x{i}" * 999: torch.ones(1) for i in range(9)}, "no ResNet or U-Net generator"),
    ],
)
def test_odd_published_weights_are_refused_before_they_take_memory(weights: dict[Any, Any], reason: str):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=reason) as caught:
        from_junyanz(weights)
    assert len(str(caught.value)) < 1500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10


def test_published_weights_stay_the_callers_own():
    weights = ResNetGenerator(width=2, blocks=1).state_dict()
    read = from_junyanz(weights)
    with torch.no_grad():
        for parameter in read.parameters():
            parameter.fill_(7)
    assert all((tensor != 7).any() for tensor in weights.values())
    assert [p.requires_grad for p in read.parameters()] == [
        p.requires_grad for p in ResNetGenerator(width=2, blocks=1).parameters()
    ]
    assert not any(tensor.is_meta for tensor in read.state_dict().values())


def test_networks_have_a_deepest_depth():
    for build in (partial(PatchGAN, layers=17), partial(UNetGenerator, levels=17)):
        with pytest.raises(ValueError, match=r"=17: a .* has at most 16"):
            build(width=1)
