"""The page of ``ganparts export --web``, in a real browser, and what it refuses to be."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from ganparts import GENERATORS, cli, from_pretrained, save_pretrained
from ganparts.data import sample
from ganparts.interchange import export_web
from ganparts.interchange.web.runtime import PACKAGE, SOURCES
from ganparts.translate import translate

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters deprecate their own functions
PHOTO = sample() / "testA" / "pontduGard_0.jpg"
ELSEWHERE = re.compile("^https:")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of onnxruntime-web: of the folder that ONNXRUNTIME_WEB names, or from npm."""
    if "ONNXRUNTIME_WEB" in os.environ:
        return Path(os.environ["ONNXRUNTIME_WEB"])
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if npm is None:
        pytest.skip("needs npm, or the npm package onnxruntime-web in the folder that ONNXRUNTIME_WEB names")
    done = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs {PACKAGE}, which npm does not get: {done.stderr[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for member in archive:
            if re.fullmatch(r"package/dist/ort.*\.(bundle\.min\.mjs|wasm)", member.name):
                archive.extract(member, folder)
    return folder / "package"


def generator(name: str = "painter", **options: Any) -> nn.Module:
    network = GENERATORS.create(name, **({"width": 8} | options))
    assert isinstance(network, nn.Module)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "monet"
    torch.manual_seed(0)
    save_pretrained(generator(), folder)
    return folder


@pytest.fixture(scope="module")
def folder(model: Path, package: Path) -> Path:
    """A page that needs no other server."""
    export_web(from_pretrained(model), model.parent / "page", name="monet", megapixels=0.02, runtime=package)
    return model.parent / "page"


@pytest.fixture(scope="module")
def networked(model: Path) -> Path:
    """A page that finds its runtime in a content network."""
    export_web(from_pretrained(model), model.parent / "networked", name="monet", megapixels=0.02)
    return model.parent / "networked"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def visit(browser: Any, package: Path) -> Iterator[Callable[..., Any]]:
    """Opens a folder's page, served here; the content network is played from the package.

    At the end nothing may have been sent, no error said, and nothing asked of another server.
    """
    ended: list[Callable[[], None]] = []
    sent: list[str] = []
    page_errors: list[str] = []

    def network(route: Any) -> None:
        source = next((each for each in SOURCES if route.request.url.startswith(each)), None)
        assert source is not None, route.request.url
        name = route.request.url.removeprefix(source)
        content = (package / "dist" / name).read_bytes()
        route.fulfill(body=content, headers={"access-control-allow-origin": "*"})

    def open_page(folder: Path, *, width: int = 1280, query: str = "", by: Any = browser, offline: bool = False) -> Any:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = by.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce")
        ended.extend((context.close, server.shutdown, server.server_close))
        context.route(ELSEWHERE, (lambda route: route.abort()) if offline else network)
        context.set_default_timeout(120_000)  # a busy machine
        page = context.new_page()
        page.on("pageerror", lambda error: page_errors.append(str(error)))
        page.on("request", lambda asked: sent.append(asked.url) if asked.method != "GET" or asked.post_data else None)
        page.goto(f"http://127.0.0.1:{server.server_port}/{query}")
        return page

    yield open_page
    for end in ended:
        end()
    assert sent == []
    assert page_errors == []


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    with Image.open(PHOTO) as photo:
        return photo.convert(mode).resize((width, height))


def as_png(image: Image.Image, name: str = "my photo.png") -> dict[str, Any]:
    content = io.BytesIO()
    image.save(content, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": content.getvalue()}


def painted(page: Any) -> tuple[str, Image.Image]:
    """The name and the picture of what the page offers to download, once it does."""
    page.wait_for_selector("#download[href], #error:not([hidden])")
    assert not page.locator("#error").is_visible(), page.locator("#error").inner_text()
    with page.expect_download() as caught:
        page.locator("#download").click()
    with Image.open(caught.value.path()) as image:
        image.load()
    return caught.value.suggested_filename, image


def difference(image: Image.Image, other: Image.Image) -> int:
    """The greatest, in bytes."""
    assert image.size == other.size
    return int(numpy.abs(numpy.asarray(image.convert("RGB"), int) - numpy.asarray(other.convert("RGB"), int)).max())


def changed(folder: Path, tmp_path: Path, code: str) -> Path:
    """A copy of a page whose worker first does something else when it paints."""
    copied, first = shutil.copytree(folder, tmp_path / "page"), "const { multiple, least } = numbers;"
    worker = (copied / "worker.js").read_text()
    assert worker.count(first) == 1
    (copied / "worker.js").write_text(worker.replace(first, f"{code} {first}"))
    return copied


@pytest.mark.parametrize("width", [1280, 390])
def test_the_painting_is_pytorchs(networked: Path, model: Path, visit: Any, width: int):
    page, photo = visit(networked, width=width), picture(131, 97)  # which the network takes padded only
    assert page.title() == "Photo to painting"
    page.set_input_files("#file", as_png(photo))
    name, painting = painted(page)
    assert name == "my_photo_monet.png"
    expected = translate(from_pretrained(model), photo, precision="fp32")
    assert difference(painting, expected) <= 2
    assert difference(painting, photo) > 20
    assert re.fullmatch(r"Painted in \d.* on the processor \(WebAssembly\)\.", page.locator("#note").inner_text())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    box = page.locator("#view").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(131 / 97, rel=0.01)
    assert page.locator("#after").evaluate("one => [one.width, one.height]") == [131, 97]
    assert not page.locator("#sizes").is_visible()


@pytest.mark.parametrize(
    ("name", "options"),
    [("unet128", {}), ("resnet6", {"upsample": "transposed"}), ("monet", {})],  # the last one ships
)
def test_other_generators_and_a_runtime_in_the_folder(
    tmp_path: Path, package: Path, visit: Any, name: str, options: dict[str, Any]
):
    network = from_pretrained(name) if name == "monet" else generator(name, **options)
    photo = picture(90, 40)  # too small for a U-Net: its border is repeated
    export_web(network, tmp_path / "page", title='<i>"Paint"</i>', runtime=package)
    page = visit(tmp_path / "page", offline=True)
    page.set_input_files("#file", as_png(photo))
    assert difference(painted(page)[1], translate(network, photo, precision="fp32")) <= 2
    assert page.locator("h1").inner_text() == '<i>"Paint"</i>'
    assert "https:" not in (tmp_path / "page" / "index.html").read_text()


def test_a_large_photo_is_made_smaller_unless_its_visitor_wants_it_whole(folder: Path, model: Path, visit: Any):
    page, photo = visit(folder), picture(200, 180, "RGBA")
    photo.putalpha(Image.new("L", photo.size, 128))
    page.set_input_files("#file", as_png(photo))
    assert painted(page)[1].size == (149, 134)
    assert (
        "The photo was made smaller, from 200 \u00d7 180 to 149 \u00d7 134 pixels."
        in page.locator("#note").inner_text()
    )
    assert page.locator("#size option").all_inner_texts() == ["up to 0.02 megapixels", "whole photo"]
    page.locator("#size").select_option("whole photo")
    expected = translate(from_pretrained(model), photo, precision="fp32")  # what is transparent lies on white
    painting = painted(page)[1]
    assert numpy.abs(numpy.asarray(painting.convert("RGB"), float) - numpy.asarray(expected, float)).mean() < 2
    assert "smaller" not in page.locator("#note").inner_text()


@pytest.fixture
def with_webgpu(browser: Any) -> Iterator[Any]:
    """The same browser with WebGPU, which it computes on the processor."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    options = ("--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    started = browser.browser_type.launch(executable_path=path, args=options)
    yield started
    started.close()


def test_webgpu_paints_the_same(folder: Path, model: Path, visit: Any, with_webgpu: Any):
    page, photo = visit(folder, by=with_webgpu, query="?with=webgpu"), picture(61, 50)
    if not page.evaluate("(async () => Boolean(await navigator.gpu?.requestAdapter()))()"):
        pytest.skip("needs a Chromium that has WebGPU")
    page.set_input_files("#file", as_png(photo))
    assert difference(painted(page)[1], translate(from_pretrained(model), photo, precision="fp32")) <= 2
    assert "on the graphics card (WebGPU)" in page.locator("#note").inner_text()


def test_where_memory_runs_out_the_photo_is_made_smaller_again(folder: Path, visit: Any, tmp_path: Path):
    page = visit(changed(folder, tmp_path, "if (width * height > 70000) throw new Error('bad_alloc');"))
    page.set_input_files("#file", as_png(picture(400, 400)))
    painted(page)
    page.locator("#size").select_option("whole photo")
    assert painted(page)[1].size == (199, 199)  # after 400 x 400 and 282 x 282
    assert "from 400 \u00d7 400 to 199 \u00d7 199" in page.locator("#note").inner_text()
    assert page.locator("#size option").all_inner_texts() == ["up to 0.02 megapixels", "up to 0.04 megapixels"]


def test_a_photo_can_be_dropped_and_compared_by_keyboard(folder: Path, visit: Any):
    page = visit(folder)
    page.evaluate(
        """async (letters) => {
            const content = Uint8Array.from(atob(letters), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([content], "dropped.png", { type: "image/png" }));
            const tell = (type) => document.body.dispatchEvent(
                new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
            tell("dragenter");
            window.invited = !document.getElementById("over").hidden;
            tell("drop");
        }""",
        base64.b64encode(as_png(picture(64, 48))["buffer"]).decode(),
    )
    assert painted(page)[0] == "dropped_monet.png"
    assert page.evaluate("window.invited")
    assert page.locator("#over").is_hidden()
    split = page.locator("#split")
    assert split.input_value() == "50"
    split.press("Home")
    assert page.locator("#after").evaluate("one => getComputedStyle(one).clipPath") == "inset(0px 0px 0px 0%)"
    split.press("End")
    assert page.locator("#after").evaluate("one => getComputedStyle(one).clipPath") == "inset(0px 0px 0px 100%)"


def test_the_last_photo_chosen_is_the_one_that_is_painted(folder: Path, model: Path, visit: Any, tmp_path: Path):
    page, last = visit(changed(folder, tmp_path, "if (width === 120) await new Promise(() => {});")), picture(60, 80)
    page.set_input_files("#file", as_png(picture(130, 130), "first.png"))  # still loading
    page.set_input_files("#file", as_png(picture(120, 120), "second.png"))  # takes forever
    page.get_by_text("Painting: 1 s").wait_for()
    page.set_input_files("#file", as_png(last, "last.png"))
    name, painting = painted(page)
    assert name == "last_monet.png"
    assert difference(painting, translate(from_pretrained(model), last, precision="fp32")) <= 2


def test_a_mistake_is_one_sentence(networked: Path, visit: Any, browser: Any):
    page = visit(networked, offline=True)
    page.set_input_files("#file", {"name": "letter.jpg", "mimeType": "image/jpeg", "buffer": b"Dear Monet,"})
    page.get_by_text("letter.jpg cannot be read as a picture: choose a JPEG, PNG or WebP.").wait_for()
    late: list[Any] = []
    page.route("**/*.onnx", lambda route: late.append(route))  # answered when another file has already failed
    page.set_input_files("#file", as_png(picture(64, 48)))
    page.get_by_text("could not be loaded: check the connection, and choose the photo again.").wait_for()
    while not late:
        page.wait_for_timeout(20)
    late[0].continue_()
    assert page.evaluate("files.get(settings.model.name).then((content) => content.byteLength)") > 0
    assert page.locator("#work").is_hidden()
    disk = browser.new_context().new_page()
    disk.goto((networked / "index.html").as_uri())
    disk.set_input_files("#file", as_png(picture(64, 48)))
    disk.get_by_text("in this folder run “python -m http.server”").wait_for()
    disk.context.close()


def test_another_runtime_than_the_one_that_was_tested_is_not_run(networked: Path, visit: Any):
    page = visit(networked, offline=True)
    page.context.route(
        ELSEWHERE,
        lambda route: route.fulfill(body="postMessage('evil')", headers={"access-control-allow-origin": "*"}),
    )
    page.set_input_files("#file", as_png(picture(64, 48)))
    page.get_by_text("could not be loaded").wait_for()


def test_a_browser_that_computes_otherwise_is_found_out(folder: Path, visit: Any, tmp_path: Path):
    copied = shutil.copytree(folder, tmp_path / "page")
    page = (copied / "index.html").read_text()
    data = re.search(r'id="settings">(.*)</script>', page)
    assert data is not None
    settings = json.loads(data[1])
    settings["check"]["values"] = (
        "AAAA" + settings["check"]["values"][4:2000][::-1] + settings["check"]["values"][2000:]
    )
    (copied / "index.html").write_text(page.replace(data[1], json.dumps(settings)))
    opened = visit(copied)
    opened.set_input_files("#file", as_png(picture(64, 48)))
    opened.get_by_text("The model cannot run in this browser (what it computes differs from PyTorch)").wait_for()


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, captured.out + captured.err


def test_the_command_writes_a_page(model: Path, tmp_path: Path, monkeypatch, capsys):
    code, said = run(monkeypatch, capsys, "export", model, tmp_path / "a" / "page", "--web", "--title", "Monet & co")
    assert code == 0, said
    assert f"python -m http.server -d {tmp_path / 'a' / 'page'}" in said
    names = sorted(path.name for path in (tmp_path / "a" / "page").iterdir())
    assert names == ["index.html", "model.onnx", "page.js", "style.css", "worker.js"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["page"]
    page = (tmp_path / "a" / "page" / "index.html").read_text()
    assert "<h1>Monet &amp; co</h1>" in page
    assert "connect-src 'self' https://cdn.jsdelivr.net https://unpkg.com;" in page
    assert run(monkeypatch, capsys, "export", model, tmp_path / "a" / "page", "--web")[0] == 0  # once more


def test_the_command_refuses_in_one_sentence(model: Path, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("my own")
    for arguments, message in (
        (("x.onnx", "--runtime", "."), "error: --runtime is for a page: give --web too, and a folder to write"),
        (("x", "--web", "--fp16"), "error: --web excludes --fp16 and --int8"),
        (("x.onnx", "--web"), "x.onnx is called like a file: give a folder"),
        (("site", "--web"), "index.html is a page that ganparts did not write: choose another folder"),
        (("x", "--web", "--megapixels", "0"), "error: megapixels=0.0: the largest photo has more than 0"),
        (("x", "--web", "--runtime", tmp_path / "site"), f"lacks ort.webgpu.bundle.min.mjs, .*`npm pack {PACKAGE}`"),
    ):
        code, said = run(monkeypatch, capsys, "export", model, tmp_path / str(arguments[0]), *arguments[1:])
        assert code == 1
        assert re.search(message, said), said
        assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]
    assert (tmp_path / "site" / "index.html").read_text() == "my own"


class Grey(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.in_channels = channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("channels", "said"), [(1, "this Grey takes 1 channels"), (3, r"this Grey makes \[1, 64, 64\] of \[3, 64, 64\]")]
)
def test_a_page_is_for_colour_photos(tmp_path: Path, channels: int, said: str):
    with pytest.raises(ValueError, match=said):
        export_web(Grey(channels), tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


class Padded(nn.Module):
    """Takes no small pictures, and does not say so."""

    def __init__(self, margin: int):
        super().__init__()
        self.layers = nn.Sequential(nn.ReflectionPad2d(margin), nn.Conv2d(3, 3, 2 * margin + 1, groups=3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images).tanh()


@pytest.mark.parametrize(("margin", "least"), [(20, 32), (80, 128)])
def test_the_page_knows_the_least_size_that_the_export_found(tmp_path: Path, margin: int, least: int):
    export_web(Padded(margin), tmp_path / "page")
    data = re.search(r'id="settings">(.*)</script>', (tmp_path / "page" / "index.html").read_text())
    assert data is not None
    assert json.loads(data[1])["least"] == least
