"""The page of ``ganparts demo``, in a real browser, and what it does not do."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image

from ganparts import GENERATORS, cli, from_pretrained, save_pretrained
from ganparts.cli.demo import name_models
from ganparts.data import decode_image, sample
from ganparts.demo import _Painter, blend, build_page, fit_pixels
from ganparts.precision import InferencePrecision
from ganparts.translate import translate

LIMITS = ("--megapixels", "0.05", "--megabytes", "1")
PHOTO = sample() / "testA" / "pontduGard_0.jpg"


class Demo(NamedTuple):
    address: str
    folder: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The command, serving two models from a folder of its own."""
    folder = tmp_path_factory.mktemp("demo")
    for name, seed in (("first", 0), ("second", 1)):
        torch.manual_seed(seed)
        network = GENERATORS.create("resnet6", width=4)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        save_pretrained(network, folder / name / "generator")
    (folder / "secret.txt").write_text("secret")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "ganparts"), "demo", "first/generator", "second/generator", *LIMITS]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = f"http://127.0.0.1:{port}"
        assert f"first, second: {address}/ (Ctrl-C ends it)" in process.stdout.readline()
        yield Demo(address, folder, process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def page(demo: Demo, browser: Any) -> Iterator[Any]:
    """The page, opened; nothing may be asked of another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(demo.address)
    page.wait_for_selector("input[type=file]", state="attached")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((demo.address, "data:", "blob:"))] == []


def upload(page: Any, name: str, content: bytes) -> None:
    page.set_input_files("input[type=file]", [{"name": name, "mimeType": "image/jpeg", "buffer": content}])


def download(page: Any, place: int) -> Image.Image:
    """What the download button of a model gives."""
    with page.expect_download() as caught:
        page.get_by_text("Download").nth(place).click()
    with Image.open(caught.value.path()) as image:
        image.load()
    image.info["name"] = caught.value.suggested_filename
    return image


def difference(image: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference, in bytes."""
    return float(numpy.abs(numpy.asarray(image, float) - numpy.asarray(other, float)).mean())


def as_jpeg(picture: torch.Tensor) -> Image.Image:
    """What is left of it in a JPEG."""
    encoded = io.BytesIO()
    to_pil_image(picture).save(encoded, "JPEG", quality=95)
    return Image.open(encoded)


def test_a_photo_is_painted_by_all_models_and_can_be_taken_home(page, demo):
    upload(page, "my photo.png", PHOTO.read_bytes())
    page.get_by_text("was made smaller, to 223 x 223 pixels").wait_for()
    paintings = [download(page, place) for place in range(2)]
    assert [image.info["name"] for image in paintings] == ["my_photo_first.jpg", "my_photo_second.jpg"]
    small = fit_pixels(decode_image(PHOTO.read_bytes()), 50_000)
    for name, painting in zip(("first", "second"), paintings, strict=True):
        assert painting.size == (223, 223)
        expected = translate(from_pretrained(demo.folder / name / "generator"), small)
        assert difference(painting, as_jpeg(expected)) < 0.1
    assert difference(*paintings) > 10
    assert page.get_by_test_id("imageslider-image").count() == 4  # before and after, twice

    page.get_by_label("second").uncheck()
    page.get_by_text("Download").nth(1).wait_for(state="hidden")
    assert difference(download(page, 0), paintings[0]) < 0.1

    page.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    deadline = time.monotonic() + 60
    while difference(download(page, 0), as_jpeg(small)) > 0.1:
        assert time.monotonic() < deadline, "at strength 0 the painting is not the photo"


def test_what_cannot_be_painted_is_said(page):
    upload(page, "letter.jpg", b"Dear Monet,")
    page.get_by_text("letter.jpg cannot be read: it is not an image that Pillow knows").first.wait_for()
    large = io.BytesIO()
    Image.new("L", (9000, 8000)).save(large, "PNG")  # few bytes, but many pixels
    upload(page, "large.png", large.getvalue())
    page.get_by_text(
        "large.png cannot be read: it claims 9000 x 8000 pixels, and more than 64,000,000"
    ).first.wait_for()
    assert not page.get_by_text("Download").first.is_enabled()


def test_files_that_are_too_large_are_refused(page):
    upload(page, "large.jpg", bytes(2**21))
    page.get_by_text("exceed the maximum allowed size of 1.0 Mb").wait_for()


def test_it_serves_no_other_file_and_no_other_machine(demo):
    for path in ("/etc/passwd", demo.folder / "secret.txt", demo.folder / "first" / "generator" / "config.json"):
        assert Path(path).is_file()
        for route in ("gradio_api/file=", "file=", "gradio_api/file%3D", "static/..%2f..%2f"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{demo.address}/{route}{path}")
            caught.value.close()
            assert caught.value.code in (403, 404, 405)
    port = int(demo.address.rpartition(":")[2])
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    for host in ("127.0.0.2", *others - {"127.0.0.1"}):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, port), timeout=5)


def test_it_takes_no_address_and_paints_by_each_model_once(demo):
    with urllib.request.urlopen(f"{demo.address}/config") as config:
        (event,) = [each["id"] for each in json.load(config)["dependencies"] if len(each["inputs"]) == 3]

    def ask(path: str, chosen: list[str]) -> list[dict[str, Any]]:
        photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [photo, chosen, 100], "fn_index": event, "session_hash": str(uuid.uuid4())}
        join = urllib.request.Request(f"{demo.address}/gradio_api/queue/join", json.dumps(body).encode())
        join.add_header("Content-Type", "application/json")
        urllib.request.urlopen(join, timeout=60).close()
        said = []
        address = f"{demo.address}/gradio_api/queue/data?session_hash={body['session_hash']}"
        with urllib.request.urlopen(address, timeout=60) as lines:
            for line in lines:
                said.append(json.loads(line.decode().removeprefix("data: ")) if line.strip() else {})
                if said[-1].get("msg") == "process_completed":
                    return said
        raise AssertionError(said)

    for path, reason in (
        ("https://example.com/photo.jpg", "upload the photo itself, not its address"),
        ("/etc/passwd", "not uploaded by a user"),
    ):
        last = ask(path, ["first"])[-1]
        assert not last["success"]
        assert reason in json.dumps(last["output"])
    body = b"--x\r\nContent-Disposition: form-data; name=files; filename=photo.jpg\r\n\r\n"
    sending = urllib.request.Request(f"{demo.address}/gradio_api/upload", body + PHOTO.read_bytes() + b"\r\n--x--\r\n")
    sending.add_header("Content-Type", "multipart/form-data; boundary=x")
    with urllib.request.urlopen(sending, timeout=60) as answer:
        (path,) = json.load(answer)
    said = ask(path, ["first"] * 50)
    assert said[-1]["success"]
    assert sum(each.get("msg") == "process_generating" for each in said) < 5


def test_it_ends_when_told_and_deletes_what_it_was_given(demo, page):
    upload(page, "given.jpg", PHOTO.read_bytes())
    page.get_by_text("was made smaller").wait_for()
    assert list(demo.folder.glob("ganparts-demo-*/*/given.jpg"))
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(60) == 0
    assert not list(demo.folder.glob("ganparts-demo-*"))


@given(st.floats(0, 1))
def test_strength_goes_from_the_photo_to_the_painting(strength):
    photo, painting = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mixed = blend(photo, painting, strength)
    exact = photo.double() * (1 - strength) + painting.double() * strength
    assert mixed.dtype == torch.uint8
    assert (mixed - exact).abs().max() <= 0.501
    assert torch.equal(blend(photo, painting, 0), photo)
    assert torch.equal(blend(photo, painting, 1), painting)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(4, 20_000))
def test_a_photo_is_made_smaller_and_keeps_its_aspect(height, width, pixels):
    photo = torch.zeros(3, height, width, dtype=torch.uint8)
    fitted = fit_pixels(photo, pixels)
    _, new_height, new_width = fitted.shape
    if height * width <= pixels:
        assert fitted is photo
    else:
        assert new_height * new_width <= max(pixels, new_height, new_width)
        factor = (pixels / (height * width)) ** 0.5
        assert abs(new_height - height * factor) <= 1
        assert abs(new_width - width * factor) <= 1


def test_models_have_names_that_tell_them_apart():
    models = [
        "run/first/generator",
        "second/generator",
        "monet.onnx",
        "owner/model.v1",
        "b/monet",
        "generator",
        "first",
    ]
    names = ["first", "second", "monet", "model.v1", "monet (2)", "generator", "first (2)"]
    assert name_models(models) == dict(zip(names, models, strict=True))
    assert len(name_models(["a/x/generator", "b/x/generator", "x", "x (2)"])) == 4
    with pytest.raises(ValueError, match="a/b is given twice"):
        name_models(["a/b", "c", "a/b"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_models_compute_in_the_precision_asked_for(tmp_path: Path, precision: InferencePrecision):
    generator = GENERATORS.create("resnet6", width=4).eval()
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "photo.png")
    photo = decode_image((tmp_path / "photo.png").read_bytes())
    painting = _Painter({"mine": generator}, 1e6, precision).painting(str(tmp_path / "photo.png"), "mine")
    expected = {name: translate(generator, photo, precision=name) for name in ("fp32", "bf16")}
    assert torch.equal(painting, expected[precision])
    assert not torch.equal(expected["fp32"], expected["bf16"])


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    identity: Any = torch.nn.Identity()
    with pytest.raises(ValueError, match="no models: give at least one"):
        build_page({})
    with pytest.raises(ValueError, match="megapixels=0, waiting=16: both are more than 0"):
        build_page({"mine": identity}, megapixels=0)
    with pytest.raises(ValueError, match="waiting=0"):
        build_page({"mine": identity}, waiting=0)
    with pytest.raises(ValueError, match=r"^precision='bf16': a Identity has no weights in fp32: leave it out$"):
        build_page({"mine": identity}, precision="bf16")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*absent"):  # names and folders are loaded
        build_page({"mine": tmp_path / "absent"})
    save_pretrained(GENERATORS.create("resnet6", width=2), tmp_path)
    for arguments, message in (
        (("--port", "99999"), "--port 99999: a port is from 1 to 65535"),
        (("--host", "192.0.2.1"), "--host 192.0.2.1: "),  # an address for documentation, which no machine has
        (("--host", "no.such.host.invalid"), "--host no.such.host.invalid: "),
        (("--megabytes", "0"), "--megabytes 0: it is at least 1"),
    ):
        monkeypatch.setattr("sys.argv", ["ganparts", "demo", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 1
        assert f"error: {message}" in capsys.readouterr().out
