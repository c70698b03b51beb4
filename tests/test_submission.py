from __future__ import annotations

import io
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from rich.console import Console
from torch import Tensor, nn

import ganparts.submission
from ganparts import GENERATORS, cli
from ganparts.data import open_images, sample
from ganparts.interchange import save_pretrained
from ganparts.submission import SubmissionError, check_submission, paint_submission, write_submission


def encoded(colour=(90, 120, 150), *, size=(256, 256), mode: str = "RGB", kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, kind)
    return buffer.getvalue()


GOOD = encoded()


def archive(path: Path, extra: Iterable[tuple[str, bytes]] = (), *, good: int = 7000, same: bool = True) -> Path:
    """``good`` right images, those that are not the same told apart by their comments, and others."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")  # of zipfile, on names that come twice
        for i in range(good):
            note = b"" if same else b"\xff\xfe" + (10).to_bytes(2, "big") + f"{i:08d}".encode()
            file.writestr(f"{i:05d}.jpg", GOOD[:2] + note + GOOD[2:])
        for name, content in extra:
            file.writestr(name, content)
    return path


def test_paintings_are_written_as_chosen(tmp_path: Path):
    photos = open_images(sample() / "testA")
    for options, table, layer in (({}, 2, (2, 2)), ({"quality": 50, "subsampling": "4:2:2"}, 16, (2, 1))):
        paint_submission(nn.Identity(), photos, tmp_path / "images.zip", count=1, **options)
        with zipfile.ZipFile(tmp_path / "images.zip") as file, Image.open(file.open(file.namelist()[0])) as image:
            assert isinstance(image, JpegImageFile)
            assert (image.quantization[0][0], image.layer[0][1:3]) == (table, layer)
    with pytest.raises(ValueError, match="quality=101: give a whole number from 1 to 100"):
        paint_submission(nn.Identity(), photos, tmp_path / "images.zip", count=1, quality=101)


def test_the_network_computes_in_the_precision_asked_for(tmp_path: Path):
    class Noting(nn.Conv2d):
        noted = torch.float64

        def forward(self, input: Tensor) -> Tensor:
            output = super().forward(input)
            self.noted = output.dtype
            return output.float()

    photos, generator = [("first", torch.zeros(3, 256, 256, dtype=torch.uint8))], Noting(3, 3, 1).eval()
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with pytest.raises(SubmissionError, match="1 images"):
            write_submission(generator, photos, tmp_path / "images.zip", precision=precision)
        assert generator.noted == dtype
    with pytest.raises(ValueError, match=r"^precision='bf16': a Identity has no weights in fp32: leave it out$"):
        write_submission(nn.Identity(), photos, tmp_path / "other.zip", precision="bf16")
    assert not (tmp_path / "other.zip").exists()


@pytest.mark.filterwarnings("ignore:.*the same to the byte")
@pytest.mark.parametrize("good", [7000, 10_000])
def test_the_right_ones_pass(tmp_path: Path, good: int):
    assert check_submission(archive(tmp_path / "images.zip", good=good)) == good


def test_copies_only_bring_a_warning(tmp_path: Path):
    copies = [("copy.jpg", GOOD), ("copy of it.jpg", GOOD)]
    path = archive(tmp_path / "images.zip", copies, good=6998, same=False)
    with pytest.warns(UserWarning, match=r"images\.zip: the same to the byte as another image: copy of it\.jpg$"):
        assert check_submission(path) == 7000
    archive(path, same=False)
    assert check_submission(path) == 7000  # and no warning, which would be an error here


BROKEN = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))


def noisy() -> bytes:
    buffer = io.BytesIO()
    BROKEN.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("a/b.jpg", GOOD), "in a folder, where all must lie flat: a/b.jpg"),
        (("a/", b""), "in a folder, where all must lie flat: a/"),
        (("a\\b.jpg", GOOD), "in a folder, where all must lie flat: a\\b.jpg"),
        (("00000.jpg", GOOD), "names that come more than once: 00000.jpg"),
        (("a.png", encoded(kind="PNG")), "not called .jpg: a.png"),
        (("a.jpg", encoded(kind="PNG")), "not JPEG but PNG: a.jpg"),
        (("a.jpg", encoded(mode="L")), "not RGB but L: a.jpg"),
        (("a.jpg", encoded(mode="CMYK")), "not RGB but CMYK: a.jpg"),
        (("a.jpg", encoded(size=(256, 255))), "not 256x256: a.jpg"),
        (("a.jpg", noisy()[:5000]), "cannot be decoded: a.jpg"),
        (("a.jpg", b""), "cannot be decoded: a.jpg"),
        ((".DS_Store", b"no image"), "not called .jpg: .DS_Store"),
    ],
)
def test_every_kind_of_wrong_is_refused_by_name(tmp_path: Path, extra: tuple[str, bytes], said: str):
    path = archive(tmp_path / "images.zip", [extra], good=7001)
    with pytest.raises(SubmissionError, match=rf"images\.zip would be refused:\n(- .*\n)*- {re.escape(said)}"):
        check_submission(path)


@pytest.mark.parametrize(
    ("good", "said"),
    [
        (6999, r"6,999 images, where 7,000 to 10,000 are taken, 1 too few \(ganparts submission --mirror .*\)"),
        (10_001, "10,001 images, where 7,000 to 10,000 are taken"),
        (0, r"0 images, where 7,000 to 10,000 are taken, 7,000 too few \(ganparts submission --mirror .*\)"),
    ],
)
def test_too_few_and_too_many_are_refused(tmp_path: Path, good: int, said: str):
    with pytest.raises(SubmissionError, match=rf"- {said}$"):
        check_submission(archive(tmp_path / "images.zip", good=good))


@pytest.mark.filterwarnings("ignore:skipped")
def test_the_command_goes_on_without_unreadable_photos_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    save_pretrained(GENERATORS.create("resnet6", width=2), tmp_path / "model")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(GOOD)
    (tmp_path / "photos" / "b.jpg").write_text("no picture")
    words = ["submission", tmp_path / "model", tmp_path / "photos", "-o", tmp_path / "images.zip", "--device", "cpu"]
    for more, said in (
        ([], r"b\.jpg: .* --skip-unreadable"),
        (["--skip-unreadable"], "1 images, where 7,000 to 10,000"),
    ):
        monkeypatch.setattr(sys, "argv", ["ganparts", *map(str, [*words, *more])])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert re.search(said, capsys.readouterr().out)


def test_all_kinds_come_in_one_error_with_the_first_offenders(tmp_path: Path):
    extra = [(f"{i}.jpg", encoded(mode="L")) for i in range(5)] + [("a/b.gif", encoded(kind="GIF"))]
    with pytest.raises(SubmissionError) as error:
        check_submission(archive(tmp_path / "images.zip", extra, good=10))
    assert error.value.problems == [
        "16 images, where 7,000 to 10,000 are taken, 6,984 too few (ganparts submission --mirror adds mirrored ones)",
        "not RGB but L: 0.jpg, 1.jpg, 2.jpg and 2 more",
        "in a folder, where all must lie flat: a/b.gif",
        "not called .jpg: a/b.gif",
        "not JPEG but GIF: a/b.gif",
    ]
    assert str(error.value).splitlines()[1:] == [f"- {problem}" for problem in error.value.problems]


def test_painting_ends_with_everything_that_the_competition_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    photos, path = open_images(sample() / "testA"), tmp_path / "images.zip"
    monkeypatch.setattr(ganparts.submission, "_LEAST", 1)
    for write, said in (
        (
            lambda: archive(path, [("a.png", encoded(kind="PNG"))], good=1),
            re.escape("not called .jpg: a.png; not JPEG but PNG: a.png."),
        ),
        (lambda: path.write_text("no archive"), r"not a zip archive that can be read \(.*\): translate_to_zip .*\."),
    ):
        monkeypatch.setattr(ganparts.submission, "translate_to_zip", lambda *_, write=write, **__: write())
        console = Console(file=io.StringIO(), soft_wrap=True)
        paint_submission(nn.Identity(), photos, path, count=1, console=console)
        assert re.search(rf"^The competition would refuse it: {said}$", console.file.getvalue(), re.MULTILINE)


def test_a_check_that_is_interrupted_says_that_the_archive_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(path: Path) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ganparts.submission.check_submission", interrupted)
    Image.new("RGB", (256, 256)).save(tmp_path / "photo.png")
    said = io.StringIO()
    path = tmp_path / "images.zip"
    console = Console(file=said, width=500)
    paint_submission(nn.Identity().eval(), open_images(tmp_path), path, count=9, console=console)
    assert zipfile.is_zipfile(path)
    assert said.getvalue().splitlines()[0] == "Painting 1 photos."
    assert said.getvalue().splitlines()[-1] == f"The check was interrupted; {path} is whole."


def test_what_is_damaged_or_no_archive_is_refused(tmp_path: Path):
    path = archive(tmp_path / "images.zip", good=7000)
    content = bytearray(path.read_bytes())
    content[content.index(GOOD) + 300] ^= 255
    path.write_bytes(content)
    with pytest.raises(SubmissionError, match=r"- cannot be read out of the archive: 00000\.jpg \(Bad CRC-32"):
        check_submission(path)
    path.write_bytes(content[:10_000])
    with pytest.raises(SubmissionError, match=r"images\.zip is not a zip archive that can be read .*translate_to_zip"):
        check_submission(path)
    with pytest.raises(SubmissionError, match=r"absent\.zip is not a zip archive that can be read \(.*No such file"):
        check_submission(tmp_path / "absent.zip")
