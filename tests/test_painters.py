"""Painters: generators with a short name, which ship with the package or are fetched."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard as HubCard
from PIL import Image
from torch import nn
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks import ship
from ganparts import DISCRIMINATORS, GENERATORS, cli, from_pretrained, save_pretrained
from ganparts.cli.app import load_generator
from ganparts.data import open_images, sample, to_unit_range
from ganparts.metrics import FewImagesWarning, evaluate
from ganparts.pretrained import Painter, find_pretrained, is_pretrained, list_painters, painters
from ganparts.pretrained.finding import CONFIG, WEIGHTS
from ganparts.submission import SubmissionError, write_submission
from ganparts.translate import translate, translate_files, translate_to_zip

SHIPPED = painters.FOLDER  # before a test has put another in its place
LARGEST = 6 * 2**20  # bytes of a painter that ships with the package
TITLE, DATA, COMMAND = "Photos as paintings", "photos and paintings", "python recipes/cut_monet.py --steps 3"


@pytest.fixture
def generator() -> nn.Module:
    return GENERATORS.create("resnet6", width=2).eval()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty table in the place of the package's; the current folder is an empty one too."""
    folder, here = tmp_path / "painters", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    (folder / painters.TABLE).write_text("{}")
    monkeypatch.setattr(painters, "FOLDER", folder)
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(here)
    return folder


@pytest.fixture
def monet(table: Path, tmp_path: Path, generator: nn.Module) -> Path:
    """A painter of that name, made of a run as the command makes them."""
    save_pretrained(generator, tmp_path / "run" / "generator")
    return ship.ship(options(tmp_path, "monet"))


def options(folder: Path, name: str, **more: object) -> ship.Ship:
    """Of a run in that folder, and with scores written beside it."""
    scores = dict.fromkeys(("kid", "fid", "mifid", "memorization", "diversity"), 0.0123)
    labels = dict.fromkeys(("extractor_digest", "real_digest", "real_size", "fake_size"), "0")
    file = folder / "scores.json"
    file.write_text(json.dumps(scores | labels | {"extractor": "inception", "real_count": 300, "fake_count": 1500}))
    return ship.Ship(
        run=str(folder / "run"),
        name=name,
        title=TITLE,
        data=DATA,
        license="cc0-1.0",
        command=COMMAND,
        scores=file,
        **more,  # pyright: ignore[reportArgumentType]
    )


def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out + captured.err


def photo() -> Image.Image:
    return Image.open(sample() / "testA" / "pontduGard_0.jpg").convert("RGB").crop((0, 0, 48, 32))


# --- what each painter promises


def assert_promises(painter: Painter) -> None:
    assert painter.name.isidentifier()
    assert all((painter.title, painter.license, painter.data, painter.scores))
    assert painter.license != "unknown"
    if painter.address is not None:
        assert painter.address.startswith("https://")
    assert painter.files.keys() >= {CONFIG, WEIGHTS}
    assert all(file.size > 0 and len(bytes.fromhex(file.sha256)) == 32 for file in painter.files.values())
    if painter.address is not None:
        return
    folder = painters.FOLDER / painter.name
    assert all(painters._is_right(folder / name, file) for name, file in painter.files.items())
    assert {path.name for path in folder.iterdir()} >= {CONFIG, WEIGHTS, "README.md"}
    assert painter.size <= LARGEST
    card = HubCard.load(folder / "README.md")
    assert card.data.to_dict()["license"] == painter.license
    for part in (f"# {painter.name}\n", painter.data, *painter.scores, f'from_pretrained("{painter.name}")'):
        assert part in card.text, part
    options = json.loads((folder / CONFIG).read_text())["options"]
    told = ", ".join(f"{name}={value!r}" for name, value in options.items())
    assert f"| options | {f'`{told}`' if told else 'those that it has by itself'} |" in card.text
    assert card.text.partition("## How to train it\n\n```bash\n")[2].startswith("python recipes/")
    network = from_pretrained(painter.name, kind="generator")
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    _, opened = next(iter(open_images(sample() / "testA").readable(1)))
    image = to_unit_range(opened)[None]
    painting = translate(network, image)
    assert painting.shape == image.shape
    assert painting.abs().max() <= 1
    assert painting.std() > 0.01


def test_every_painter_of_the_package_keeps_its_promises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    known = list_painters()
    for painter in known.values():
        assert_promises(painter)
    here = {name for name, painter in known.items() if painter.address is None}
    assert {path.name for path in SHIPPED.iterdir()} == here | {painters.TABLE}


def test_what_the_command_ships_keeps_the_promises(monet: Path):
    assert_promises(list_painters()["monet"])
    (monet / "README.md").write_text((monet / "README.md").read_text().replace(DATA, ""))
    with pytest.raises(AssertionError):
        assert_promises(list_painters()["monet"])


def test_the_command_tells_size_and_rounding(table: Path, tmp_path: Path, generator: nn.Module, monkeypatch, capsys):
    save_pretrained(generator, tmp_path / "run")
    given = vars(options(tmp_path, "monet"))
    words = [word for name in ("title", "data", "license", "command", "scores") for word in (f"--{name}", given[name])]
    monkeypatch.setattr(sys, "argv", ["ship", given["run"], "monet", *map(str, words)])
    ship.main()
    said = capsys.readouterr().out.splitlines()
    size = (table / "monet" / WEIGHTS).stat().st_size
    assert said[0] == f"{table / 'monet'}: {size / 2**20:.2f} MiB of weights in float16"
    assert said[1] in [f"The greatest difference of a painting is {levels} of 255." for levels in (1, 2)]
    assert list(list_painters()) == ["monet"]


# --- by name


def test_a_painter_is_found_by_its_name(monet: Path, generator: nn.Module):
    network = from_pretrained("monet")
    assert not network.training
    for name, tensor in generator.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor.half().float())
    assert is_pretrained("monet")
    assert find_pretrained("monet") == monet
    assert not is_pretrained(Path("monet"))  # a path is a path
    with pytest.raises(FileNotFoundError, match="there is no folder monet"):
        from_pretrained(Path("monet"))
    with pytest.raises(FileNotFoundError, match="there is no folder monet"):
        from_pretrained("./monet")


def test_a_picture_is_translated_by_a_name(monet: Path, tmp_path: Path):
    expected = translate(from_pretrained("monet"), photo())
    for model in ("monet", monet, str(monet)):
        assert translate(model, photo()).tobytes() == expected.tobytes()
    assert translate("monet", [photo()])[0].tobytes() == expected.tobytes()
    save_pretrained(DISCRIMINATORS.create("pixel", width=2), tmp_path / "judge")
    with pytest.raises(ValueError, match="judge holds a discriminator, and this takes a generator"):
        translate(tmp_path / "judge", photo())


def test_functions_take_a_painter(monet: Path, tmp_path: Path):
    photo().save("photo.png")
    expected = translate("monet", photo())
    translate_files("monet", "photo.png", "paintings", format="png")
    assert Image.open("paintings/photo.png").tobytes() == expected.tobytes()
    entry = ("photo", pil_to_tensor(photo()))
    for paint in (translate_to_zip, write_submission):
        with suppress(SubmissionError):  # it is one photo, not 7,000
            paint("monet", [entry], "images.zip")
        with zipfile.ZipFile("images.zip") as archive:
            assert archive.namelist() == ["photo.jpg"]
        Path("images.zip").unlink()
    photos = [photo(), photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    options: Any = {"photos": photos, "extractor": "efficientnet_lite0", "workers": 0, "device": "cpu"}
    with pytest.warns(FewImagesWarning):
        assert evaluate(photos, "monet", **options) == evaluate(photos, from_pretrained("monet"), **options)


def test_the_commands_take_a_painter(monet: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    photo().save("photo.png")
    expected = translate("monet", photo())
    arguments = ("translate", "monet", "photo.png", "-o", "monet", "--device", "cpu", "--format", "png")
    assert run_cli(monkeypatch, capsys, *arguments)[0] == 0
    assert Image.open("monet/photo.png").tobytes() == expected.tobytes()
    assert run_cli(monkeypatch, capsys, *arguments, "--overwrite")[0] == 0  # though there is a folder "monet" now
    code, said = run_cli(monkeypatch, capsys, "export", "monet", "out.onnx")
    assert code == 0, said
    network = load_generator("out.onnx", device=torch.device("cpu"))
    image = torch.rand(1, 3, 32, 48) * 2 - 1
    torch.testing.assert_close(network(image), from_pretrained("monet")(image), rtol=0, atol=1e-4)


def test_the_page_takes_a_painter(monet: Path):
    from ganparts.cli.demo import name_models

    assert name_models(["monet", "runs/monet/generator"]) == {"monet": "monet", "monet (2)": "runs/monet/generator"}
    assert isinstance(load_generator("monet", device=torch.device("cpu")), nn.Module)


def test_painters_are_listed(monet: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    entries = json.loads((monet.parent / painters.TABLE).read_text())
    far = entries["monet"] | {"address": "https://example.org/far", "files": {}}
    far["files"] = {WEIGHTS: {"size": 3 * 2**20, "sha256": "0" * 64}}
    (monet.parent / painters.TABLE).write_text(json.dumps(entries | {"far": far}))
    code, said = run_cli(monkeypatch, capsys, "list", "painters")
    assert code == 0
    header, *rows = said.splitlines()
    assert header.split() == ["name", "MiB", "licence", "where", "what", "data", "scores"]
    assert [row.split()[:4] for row in rows] == [
        ["far", "3.0", "cc0-1.0", "https://example.org/far"],
        ["monet", f"{list_painters()['monet'].size / 2**20:.1f}", "cc0-1.0", "here"],
    ]
    assert all(part in rows[1] for part in (TITLE, DATA, "KID 0.0123"))
    (monet.parent / painters.TABLE).write_text("{}")
    assert run_cli(monkeypatch, capsys, "list", "painters") == (0, "There are no painters yet.\n")


def test_a_folder_with_a_model_comes_before_a_painter(monet: Path):
    own = Path("monet")
    save_pretrained(GENERATORS.create("resnet9", width=2), own / "generator")  # a run folder
    assert find_pretrained("monet") == own / "generator"
    save_pretrained(GENERATORS.create("resnet9", width=2), own)
    assert find_pretrained("monet") == own
    assert is_pretrained("monet")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "checkpoint.pt", "generator"])
def test_a_folder_with_a_part_of_a_model_is_not_passed_over(monet: Path, name: str):
    Path("monet").mkdir()
    (Path("monet") / name).touch()
    with pytest.raises(FileNotFoundError, match="monet is not a pretrained folder"):
        from_pretrained("monet")


def test_a_painter_comes_before_any_other_file_or_folder(monet: Path):
    Path("monet").touch()
    assert find_pretrained("monet") == monet
    assert not is_pretrained("monet")  # evaluate: images, if anything
    Path("monet").unlink()
    Path("monet").mkdir()
    assert find_pretrained("monet") == monet
    assert not is_pretrained("monet")


@pytest.mark.parametrize("name", ["monnet", "Monet", "mone"])
def test_the_nearest_painter_is_proposed(monet: Path, name: str):
    with pytest.raises(FileNotFoundError, match=rf"no folder {name} \(did you mean the painter 'monet'\?\): give a"):
        from_pretrained(name)
    assert not is_pretrained(name)
    with pytest.raises(FileNotFoundError, match=r"no folder rembrandt: give .* a painter's name \(ganparts list pain"):
        from_pretrained("rembrandt")


# --- half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_stored_in_16_bits_and_loaded_in_32(tmp_path: Path, dtype: torch.dtype):
    network = GENERATORS.create("resnet6", width=8, norm="batch").eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_pretrained(network, tmp_path / "whole")
    save_pretrained(network, tmp_path / "half", dtype=dtype)
    sizes = [(tmp_path / folder / WEIGHTS).stat().st_size for folder in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    read = from_pretrained(tmp_path / "half").state_dict()
    assert read.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(network.state_dict()[name], tensor)  # the network itself is left as it was
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.to(dtype).float() if tensor.is_floating_point() else tensor)
    name = str(dtype).removeprefix("torch.")
    assert f"| weights | {name} on disk, float32 when loaded |" in (tmp_path / "half" / "README.md").read_text()
    assert "on disk" not in (tmp_path / "whole" / "README.md").read_text()


def test_a_type_that_cannot_hold_the_weights_is_refused(tmp_path: Path, generator: nn.Module):
    with pytest.raises(ValueError, match=r"dtype=torch\.int8: weights are floats: torch\.float16"):
        save_pretrained(generator, tmp_path / "x", dtype=torch.int8)
    name, weight = next(iter(generator.named_parameters()))
    weight.data.view(-1)[0] = 1e5
    with pytest.raises(ValueError, match=rf"{name} holds values beyond 65,504: take torch\.bfloat16"):
        save_pretrained(generator, tmp_path / "x", dtype=torch.float16)
    assert not is_pretrained(tmp_path / "x")
    save_pretrained(generator, tmp_path / "x", dtype=torch.bfloat16)
    assert from_pretrained(tmp_path / "x").state_dict()[name].max() == torch.tensor(1e5).bfloat16()


# --- painters that are fetched


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(self.path)  # pyright: ignore[reportAttributeAccessIssue]


class Server:
    """A folder of files on this machine's own address."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        self._server.asked = self.asked = []  # pyright: ignore[reportAttributeAccessIssue]
        self.address = f"http://127.0.0.1:{self._server.server_port}/monet"
        self._thread = threading.Thread(target=partial(self._server.serve_forever, poll_interval=0.01))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(table: Path, tmp_path: Path, generator: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves a painter that is not in the package."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server(tmp_path / "served")
    save_pretrained(generator, tmp_path / "run")
    ship.ship(options(tmp_path, "monet", address=server.address, out=server.folder / "monet"))
    try:
        yield server
    finally:
        server.close()


def kept() -> list[Path]:
    return sorted(path for path in painters.cache_folder().rglob("*") if path.is_file())


def test_a_painter_is_fetched_once(server: Server, table: Path, generator: nn.Module):
    assert sorted(path.name for path in table.iterdir()) == [painters.TABLE]
    assert is_pretrained("monet")
    assert list_painters()["monet"].size == sum((server.folder / "monet" / f).stat().st_size for f in (CONFIG, WEIGHTS))
    assert server.asked == []  # so far nothing was fetched
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    expected = from_pretrained("monet")(image)
    torch.testing.assert_close(expected, generator(image), rtol=0, atol=0.01)
    assert [path.name for path in kept()] == [CONFIG, WEIGHTS]
    assert server.asked == [f"/monet/{CONFIG}", f"/monet/{WEIGHTS}"]
    shutil.rmtree(server.folder / "monet")
    assert torch.equal(from_pretrained("monet")(image), expected)
    assert len(server.asked) == 2


def test_an_entry_is_read_as_it_may_be_written(server: Server, table: Path):
    path = table / painters.TABLE
    entries = json.loads(path.read_text())
    for file in entries["monet"]["files"].values():
        file["sha256"] = file["sha256"].upper()
    path.write_text(json.dumps(entries))
    assert from_pretrained("monet") is not None
    assert from_pretrained("monet") is not None
    assert len(server.asked) == 2  # not again
    entries["monet"]["files"] = {}
    path.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"^the painter 'monet' has an address and no files: list each with size"):
        from_pretrained("monet")


def test_a_damaged_file_is_fetched_again(server: Server):
    find_pretrained("monet")
    (weights,) = (path for path in kept() if path.name == WEIGHTS)
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        find_pretrained("monet")
        assert weights.read_bytes() == whole
    assert len(server.asked) == 4


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:-1] + b"x", lambda b: b + bytes(3 * 2**20)])
def test_what_is_not_the_painters_is_never_kept(server: Server, change):
    served = server.folder / "monet" / WEIGHTS
    right = served.stat().st_size
    served.write_bytes(change(served.read_bytes()))
    amount = "more than " if served.stat().st_size > right else ""
    with pytest.raises(
        OSError, match=rf"'monet' could not be fetched from {server.address}/{WEIGHTS} .*: it holds {amount}"
    ):
        from_pretrained("monet")
    assert [path.name for path in kept()] == [CONFIG]


def test_without_a_network_there_is_one_clear_error(server: Server, monkeypatch: pytest.MonkeyPatch, capsys):
    (server.folder / "monet" / CONFIG).unlink()
    expected = (
        r"'monet' could not be fetched from {}/config\.json to .*monet-\w{{12}}: {}.*\. Check the network, or put"
    )
    with pytest.raises(OSError, match=expected.format(server.address, "HTTP Error 404")):
        from_pretrained("monet")
    server.close()
    with pytest.raises(OSError, match=expected.format(server.address, ".*refused")):
        from_pretrained("monet")
    code, said = run_cli(monkeypatch, capsys, "translate", "monet", "photo.png", "-o", "out", "--device", "cpu")
    assert code == 1
    assert said.startswith("error: the painter 'monet' could not be fetched")
    assert len(said.splitlines()) == 1
    assert kept() == []


def test_a_connection_that_breaks_leaves_nothing(table: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

        thread = threading.Thread(target=answer)
        thread.start()
        files = {name: {"size": 100, "sha256": "0" * 64} for name in (CONFIG, WEIGHTS)}
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        entry = {"title": "", "license": "", "data": "", "scores": {}, "address": address, "files": files}
        (table / painters.TABLE).write_text(json.dumps({"far": entry}))
        with pytest.raises(OSError, match="the painter 'far' could not be fetched"):
            from_pretrained("far")
        thread.join()
    assert kept() == []


def test_a_cache_that_cannot_be_written_is_named(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"fetched from .* to .*file/painters/monet-\w+: .*GANPARTS_CACHE names another"):
        from_pretrained("monet")
    monkeypatch.delenv("GANPARTS_CACHE")
    assert painters.cache_folder() == Path.home() / ".cache" / "ganparts"


def test_mistakes_in_shipping_are_named(monet: Path, tmp_path: Path):
    for name in ("Monet", "claude-monet", "a/b"):
        with pytest.raises(ValueError, match="use lower-case letters, digits and underscores"):
            ship.ship(options(tmp_path, name))
    with pytest.raises(ValueError, match="--address and --out go together"):
        ship.ship(options(tmp_path, "other", out=tmp_path / "other"))
    assert list(list_painters()) == ["monet"]


def test_on_the_meta_device_a_painter_has_no_weights():
    with torch.device("meta"):
        network = from_pretrained("monet")
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(
        parameter.numel() for parameter in from_pretrained("monet").parameters()
    )
