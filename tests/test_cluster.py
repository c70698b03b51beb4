"""``ganparts translate --ray``: the same results as without it, whatever dies on the way."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import fsspec
import numpy as np
import pytest
import torch
from fsspec.config import conf
from moto.server import ThreadedMotoServer
from PIL import Image
from torch import Tensor, nn

from ganparts import GENERATORS, cli
from ganparts.translate import actors, cluster, translate_files, translate_on_cluster

COLOURS = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 3), np.uint8)
"""Pictures, small and different."""


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return GENERATORS.create("resnet6", width=4).eval()


def encoded(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOURS[number]).resize((40, 30 + number % 2)).save(file, "PNG")
    return file.getvalue()


def make_photos(folder: Path, names: Sequence[str]) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(number))
    return folder


def make_archive(path: Path, names: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, name in enumerate(names):
                archive.writestr(name, encoded(number))
    else:
        with tarfile.open(path, "w") as archive:
            for number, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.size = len(encoded(number))
                archive.addfile(member, io.BytesIO(encoded(number)))
    return path


def contents(path: Path) -> dict[str, bytes]:
    """The files in a folder or an archive, by name."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert len(set(archive.namelist())) == len(archive.namelist())
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as archive:
        read = [(member.name, archive.extractfile(member)) for member in archive]
        assert len({name for name, _ in read}) == len(read)
        return {name: file.read() for name, file in read if file}


def translated(folder: Path, names: Sequence[str], **options: Any) -> dict[str, bytes]:
    """What ``translate_files`` writes for ``make_photos``, in one folder with the photos' names."""
    flat = [name.replace("/", "__") for name in names]
    make_photos(folder / "flat", flat)
    report = translate_files(tiny(), [folder / "flat"], folder / "expected", batch_size=1, workers=1, **options)
    assert report.failed == 0
    return {name.replace("__", "/"): content for name, content in contents(folder / "expected").items()}


# ----- in this process: what is work, what is written where


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """No cluster: calls of actors are made in this process, and their names kept."""
    calls: list[list[str]] = []

    def run(pool: object, setup: Any, work: Sequence[Any], most: int) -> Iterator[Any]:
        for start in range(0, len(work), max(1, most)):
            call = work[start : start + most]
            calls.append([each.target for each in call])
            yield from setup.work_off(call, 1)

    monkeypatch.setattr(cluster, "_cluster", lambda address: nullcontext())
    monkeypatch.setattr(cluster._Pool, "planned", lambda *_: cluster._Pool(2, 1, 0))
    monkeypatch.setattr(cluster._Pool, "run", run)
    return calls


NAMES = ["a.png", "b.jpg", "sub/a.png", "sub/deep/er/c.webp"]


@pytest.mark.parametrize("out", ["out", "out.zip", "out.tar"])
@pytest.mark.parametrize("source", ["photos", "photos.zip", "photos.tar", "photos/**"])
def test_sources_and_targets(tmp_path: Path, here: list[list[str]], source: str, out: str):
    make = make_archive if source.endswith(("zip", "tar")) else make_photos
    make(tmp_path / source.removesuffix("/**"), NAMES)
    expected = translated(tmp_path / "plain", NAMES)
    for written, skipped in ((4, 0), (0, 4)):
        report = translate_on_cluster(tiny(), [tmp_path / source], tmp_path / out)
        assert (report.written, report.skipped, report.problems) == (written, skipped, [])
        assert contents(tmp_path / out) == expected
    assert sorted(name for call in here for name in call) == sorted(expected)
    assert not list(tmp_path.rglob("*.partial"))


def test_links_in_a_tar_archive_are_followed(tmp_path: Path, here: list[list[str]]):
    path = make_archive(tmp_path / "links.tar", ["sub/a.png"])
    with tarfile.open(path, "a") as archive:
        for name, kind, target in (
            ("b.png", tarfile.LNKTYPE, "sub/a.png"),
            ("sub/c.png", tarfile.SYMTYPE, "a.png"),
            ("d.png", tarfile.SYMTYPE, "sub/c.png"),
            ("e.png", tarfile.SYMTYPE, "e.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    report = translate_on_cluster(tiny(), [path], tmp_path / "out", format="png")
    assert report.problems == [
        f"cannot read the image e.png in {path}: it is a link to 'e.png', which is not in the archive"
    ]
    found = contents(tmp_path / "out")
    assert sorted(found) == ["b.png", "d.png", "sub/a.png", "sub/c.png"]
    assert len(set(found.values())) == 1


def test_archives_in_a_folder_stay_archives(tmp_path: Path, here: list[list[str]]):
    make_archive(tmp_path / "shards" / "one.tar", NAMES)
    make_archive(tmp_path / "shards" / "sub" / "two.zip", [*NAMES, "broken.png"])
    with zipfile.ZipFile(tmp_path / "shards" / "sub" / "two.zip", "a") as archive:
        archive.writestr("text.jpg", "no picture")
        archive.writestr("sub/a.jpg", encoded(0))  # as sub/a.png
    make_archive(tmp_path / "shards" / "empty.tar", [])
    (tmp_path / "shards" / "cut.zip").write_bytes((tmp_path / "shards" / "sub" / "two.zip").read_bytes()[:500])
    report = translate_on_cluster(tiny(), [tmp_path / "shards"], tmp_path / "out")
    assert (report.written, report.skipped, report.failed) == (2, 0, 4)
    assert contents(tmp_path / "out" / "one.tar") == translated(tmp_path / "plain", NAMES)
    assert contents(tmp_path / "out" / "sub" / "two.zip") == translated(tmp_path / "other", [*NAMES, "broken.png"])
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["one.tar", "two.zip"]
    said = "\n".join(sorted(report.problems))
    for problem in (
        f"{tmp_path}/shards/cut.zip: an archive that cannot be read: ",
        f"{tmp_path}/shards/empty.tar: no images in it",
        f"sub/a.jpg in {tmp_path}/shards/sub/two.zip: another input, or another run just now, has the result sub/a.jpg",
        f"cannot read the image text.jpg in {tmp_path}/shards/sub/two.zip: it is not an image",
    ):
        assert problem in said
    again = translate_on_cluster(tiny(), [tmp_path / "shards"], tmp_path / "out")
    assert (again.written, again.skipped, again.failed) == (0, 2, 2)
    together = translate_on_cluster(tiny(), [tmp_path / "shards"], tmp_path / "all.zip")  # photos of all, one by one
    assert sorted(contents(tmp_path / "all.zip")) == sorted(
        [*(f"one/{name}" for name in contents(tmp_path / "out" / "one.tar"))]
        + [f"sub/two/{name}" for name in contents(tmp_path / "out" / "sub" / "two.zip")]
    )
    assert together.written == 9


def test_what_cannot_be_translated_is_told(tmp_path: Path, here: list[list[str]]):
    photos = make_photos(tmp_path / "photos", ["a.png", "a.jpg", "sub/b.png", ".hidden.png", ".folder/c.png", "d.txt"])
    (photos / "sub" / "bad.png").write_text("no picture")
    make_archive(tmp_path / "outside.zip", ["../../e.png", "/f.png"])
    inputs = [photos, tmp_path / "outside.zip", tmp_path / "none", str(photos / "*.gif"), str(photos / ".folder")]
    report = translate_on_cluster(tiny(), inputs, photos / "paintings")  # which is no input itself
    again = translate_on_cluster(tiny(), inputs, photos / "paintings")
    problems = [
        "cannot read the image photos/sub/bad.png: it is not an image that Pillow knows",
        "none: there is no such file or folder",
        "photos/*.gif: no file matches this pattern",
        "photos/a.png: another input, or another run just now, has the result a.jpg: rename one of them",
    ]
    for each, written, skipped, expected in ((report, 5, 0, problems), (again, 0, 6, problems[:3])):
        assert (each.written, each.skipped, each.failed) == (written, skipped, len(expected))
        assert sorted(problem.replace(f"{tmp_path}/", "") for problem in each.problems) == expected
    assert sorted(contents(photos / "paintings")) == ["a.jpg", "c.jpg", "e.jpg", "f.jpg", "sub/b.jpg"]
    itself = translate_on_cluster(tiny(), [photos / "a.jpg"], photos)
    assert "its result would replace it" in itself.problems[0]
    for mistake, options in (
        (r"photos is both input and output: give another folder", {}),
        (r"actors=0: give a whole number, at least 1", {"actors": 0}),
        (r"cores=-1: give a whole number, at least 1", {"cores": -1}),
        (r"tile=-1 pixels", {"tile": -1}),
        (r"quality=0: give a whole number from 1 to 100", {"quality": 0}),
        (r"batch_size=0: give a whole number, at least 1", {"batch_size": 0}),
    ):
        with pytest.raises(ValueError, match=mistake):
            translate_on_cluster(tiny(), [photos], photos, **options)
    with pytest.raises(ValueError, match=r"d.txt is a file: give a folder, a .zip or a .tar for the results"):
        translate_on_cluster(tiny(), [photos], photos / "d.txt")


def test_the_folder_of_the_results_may_be_around_the_photos(tmp_path: Path, here: list[list[str]]):
    for around, pattern in ((tmp_path / "Holiday [2024]", ""), (tmp_path / "plain", ""), (tmp_path / "plain", "/**")):
        make_photos(around / "photos", NAMES)
        report = translate_on_cluster(tiny(), [f"{around}/photos{pattern}"], around, overwrite=True)
        assert (report.written, report.problems) == (4, [])


def test_a_shard_is_not_left_half_done(tmp_path: Path, here: list[list[str]]):
    make_archive(tmp_path / "shards" / "one.tar", NAMES)

    class Fails(nn.Identity):
        photos = 0

        def forward(self, input: Tensor) -> Tensor:
            self.photos += 1
            if self.photos == 3:
                raise ValueError("no memory left")
            return super().forward(input)

    with pytest.raises(ValueError, match="no memory left"):
        translate_on_cluster(Fails(), [tmp_path / "shards"], tmp_path / "out", batch_size=1)
    assert not list((tmp_path / "out").iterdir())


def test_an_archive_of_results_is_continued(tmp_path: Path, here: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    make_photos(tmp_path / "photos", names := [f"{number}.png" for number in range(4)])
    run = cluster._Pool.run

    def interrupted(*given: Any) -> Iterator[Any]:
        for number, outcome in enumerate(run(*given)):
            if number == 2:
                raise KeyboardInterrupt
            yield outcome

    with monkeypatch.context() as patched:
        patched.setattr(cluster._Pool, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            translate_on_cluster(tiny(), [tmp_path / "photos"], tmp_path / "out.zip")
    report = translate_on_cluster(tiny(), [tmp_path / "photos"], tmp_path / "out.zip")
    assert (report.written, report.skipped) == (2, 2)
    assert contents(tmp_path / "out.zip") == translated(tmp_path / "plain", names)


def test_names_that_files_cannot_have_cost_no_other_photo(tmp_path: Path, here: list[list[str]]):
    make_archive(tmp_path / "long.zip", ["y" * 300 + ".png", "a.png"])
    report = translate_on_cluster(tiny(), [tmp_path / "long.zip"], tmp_path / "out")
    assert (report.written, report.failed) == (1, 1)
    assert "its result's name is too long for a file" in report.problems[0]


def test_options_are_those_of_translate_files(tmp_path: Path, here: list[list[str]]):
    photos = make_photos(tmp_path / "photos", NAMES[:2])
    options: dict[str, Any] = {"size": 16, "squash": True, "format": "png"}
    translate_on_cluster(tiny(), [photos], tmp_path / "out", **options)
    assert contents(tmp_path / "out") == translated(tmp_path, NAMES[:2], **options)
    options = {"quality": 40, "subsampling": "4:4:4", "tile": 16, "resize": 24, "margin": 3}
    report = translate_on_cluster(tiny(), [photos], tmp_path / "other", **options)
    assert contents(tmp_path / "other") == translated(tmp_path / "again", NAMES[:2], **options)
    (tmp_path / "other" / "a.jpg").write_bytes(b"old")
    translate_on_cluster(tiny(), [photos], tmp_path / "other", **options)
    assert (tmp_path / "other" / "a.jpg").read_bytes() == b"old"
    report = translate_on_cluster(tiny(), [photos], tmp_path / "other", overwrite=True, **options)
    assert report.written == 2
    assert (tmp_path / "other" / "a.jpg").read_bytes() != b"old"


def test_a_photo_that_kills_its_process_costs_no_other(
    tmp_path: Path, here: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    make_photos(tmp_path / "photos", names := [f"{number}.png" for number in range(20)])
    attempts: list[list[str]] = []

    def run(pool: object, setup: Any, work: Sequence[Any], most: int) -> Iterator[Any]:
        for start in range(0, len(work), most):
            call = work[start : start + most]
            for attempt in range(1, actors.ATTEMPTS + 2):
                attempts.append([each.target for each in call])
                killed = [each.target for each in call].index("7.jpg") if "7.jpg" in attempts[-1] else None
                if killed is not None and attempt <= actors.ATTEMPTS:
                    setup.work_off(call[:killed], attempt)  # what was written before
                else:
                    yield from setup.work_off(call, attempt)
                    break

    monkeypatch.setattr(cluster._Pool, "run", run)
    seen: list[tuple[int, int]] = []
    report = translate_on_cluster(
        tiny(), [tmp_path / "photos"], tmp_path / "out", progress=lambda r, total: seen.append((r.written, total))
    )
    assert (report.written, report.skipped, report.failed) == (19, 0, 1)
    assert report.problems == [
        f"{tmp_path}/photos/7.png: the process that translated it died 3 times. Is there too little memory?"
    ]
    assert contents(tmp_path / "out").keys() == {name.replace("png", "jpg") for name in names} - {"7.jpg"}
    assert attempts[-4:] == [["7.jpg"]] * 4
    assert seen[-1] == (19, 20)


def test_what_was_written_before_a_death_is_not_written_again(tmp_path: Path):
    from ganparts.translate.addresses import Place, find_work

    make_photos(tmp_path / "photos", NAMES)
    work = list(find_work([str(tmp_path / "photos")], Place.of(tmp_path / "out"), "jpg", print))
    settings = cluster.Settings(cluster.Encoding(), batch_size=1)
    setup = actors.Setup(tiny(), settings, Place.of(tmp_path / "out"), False, 1)
    setup.work_off(work[:2], 1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jpg")}
    assert len(before) == 2
    outcomes = setup.work_off(work, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(outcome.target for outcome in outcomes if outcome.written) == sorted(each.target for each in work)
    assert all(outcome.given_up for outcome in setup.work_off(work, actors.ATTEMPTS + 1))


MACHINES = {
    "a laptop": [(8, 0)],
    "two of eight GPUs": [(64, 8), (48, 8), (16, 0)],
    "a head without work": [(0, 0), (3, 0), (16, 0)],
    "more GPUs than cores": [(2, 4)],
}


@pytest.mark.parametrize(
    ("machines", "device", "cores", "expected"),
    [
        ("a laptop", "auto", None, (2, 4, 0)),
        ("a laptop", "cpu", 3, (2, 3, 0)),
        ("two of eight GPUs", "auto", None, (16, 6, 1)),
        ("two of eight GPUs", "cuda", 16, (7, 16, 1)),
        ("two of eight GPUs", "cpu", None, (32, 4, 0)),
        ("a head without work", "auto", None, (6, 3, 0)),
        ("more GPUs than cores", "auto", None, (2, 1, 1)),
        ("a laptop", "cuda", None, "no machine of the cluster has a GPU"),
        ("a laptop", "auto", 9, "no machine of the cluster has 9 cores for an actor"),
        ("a laptop", "cuda:1", None, "device='cuda:1': on a cluster it is 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_actors_fill_the_cluster(
    monkeypatch: pytest.MonkeyPatch, machines: str, device: str, cores: int | None, expected: Any
):
    ray = ModuleType("ray")
    ray.nodes = lambda: [  # pyright: ignore[reportAttributeAccessIssue]
        {"Alive": alive, "Resources": {"CPU": float(cpu), "GPU": float(gpu)}}
        for alive, group in ((True, MACHINES[machines]), (False, [(8, 8)]))
        for cpu, gpu in group
    ]
    monkeypatch.setitem(sys.modules, "ray", ray)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=re.escape(expected)):
            cluster._Pool.planned(device, None, cores)
    else:
        assert cluster._Pool.planned(device, None, cores) == cluster._Pool(*expected)
        assert cluster._Pool.planned(device, 5, cores).actors == 5


def test_mistakes_of_the_command_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("ganparts.cli.translate.load_generator", lambda *_, **__: tiny())
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    arguments = ["translate", "model", "photos", "-o", tmp_path / "out"]
    for more, message in (
        (["--ray"], "translating on a cluster needs ray, "),
        (["--ray", "a:1", "b:1"], "--ray a:1 b:1: it takes one address; give model and inputs before it"),
        (["-o", "s3://bucket/out"], "s3://bucket/out is an address: add --ray"),
    ):
        code, said = run(monkeypatch, capsys, *arguments, *more)
        assert code == 1
        assert said.splitlines()[-1].startswith(f"error: {message}")
    with pytest.raises(ImportError, match=r"pip install 'ganparts\[ray\]'"):
        translate_on_cluster(tiny(), [tmp_path], tmp_path / "out")


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Ray, of which nothing is started, and signals that are as before afterwards."""
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr("ganparts.cli.translate.load_generator", lambda *_, **__: tiny())
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield ray
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.filterwarnings("default")
def test_a_signal_ends_the_command_as_ctrl_c_does(
    no_cluster: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def exit_with_traces(*_: object) -> None:
        raise SystemExit(15)

    monkeypatch.setattr(no_cluster, "init", lambda **_: signal.signal(signal.SIGTERM, exit_with_traces))
    monkeypatch.setattr(cluster, "open_target", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    code, said = run(monkeypatch, capsys, "translate", "model", "photos", "-o", "out", "--ray")
    assert (code, said.splitlines()[-1]) == (130, "Interrupted.")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # under nohup


@pytest.mark.filterwarnings("default")
def test_a_cluster_that_does_not_answer(
    no_cluster: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at a:1")

    monkeypatch.setattr(no_cluster, "init", refuse)
    code, said = run(monkeypatch, capsys, "translate", "model", "photos", "-o", "out", "--ray", "a:1")
    assert code == 1
    assert said.splitlines()[-1].startswith("error: Failed to connect to Ray cluster at a:1: is it running, and does")


# ----- on a cluster of two actors


class Deadly(nn.Module):
    """A generator whose process is killed at its third photo, if it is the first to get there."""

    def __init__(self, generator: nn.Module, marker: Path):
        super().__init__()
        self.generator, self.marker, self.photos = generator, marker, 0
        self.size_multiple = generator.size_multiple

    def forward(self, images: Tensor) -> Tensor:
        self.photos += 1
        if self.photos == 3 and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return self.generator(images)


@pytest.fixture(scope="module")
def two_actors() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        warnings.simplefilter("default")
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_worker_niceness", "0")
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield
        ray.shutdown()


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["ganparts", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_a_process_is_killed(
    tmp_path: Path, two_actors: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    names = [f"{'sub/' * (number % 3)}{number}.png" for number in range(24)]
    photos, deadly = make_photos(tmp_path / "photos", names), Deadly(tiny(), tmp_path / "killed")
    (photos / "sub" / "bad.jpg").write_text("no picture")
    monkeypatch.setattr("ganparts.cli.translate.load_generator", lambda *_, **__: deadly)
    arguments = ["translate", "deadly", photos, "-o", tmp_path / "out", "--ray", "--ray-cores", 1]
    code, said = run(monkeypatch, capsys, *arguments)
    assert (tmp_path / "killed").exists()
    assert f"{tmp_path}/out: 24 written, 0 there already, 1 failed" in said
    assert f"failed: cannot read the image {photos}/sub/bad.jpg: it is not an image that Pillow knows" in said
    assert code == 1
    assert contents(tmp_path / "out") == translated(tmp_path / "plain", names)

    (photos / "sub" / "bad.jpg").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    code, said = run(monkeypatch, capsys, *arguments)
    assert f"{tmp_path}/out: 0 written, 24 there already, 0 failed" in said
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_failures_that_are_not_told_one_by_one_count():
    report = cluster.Report()
    cluster._count(actors.Outcome("shard.tar", failed=3, problems=["a.png: broken"]), report)
    assert (report.written, report.failed, report.problems) == (1, 3, ["a.png: broken"])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of S3, which moto plays on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    access = {"key": "anything", "secret": "anything", "endpoint_url": f"http://{host}:{port}"}
    monkeypatch.setitem(conf, "s3", access)
    cast(Any, fsspec.filesystem("s3")).mkdir("bucket")
    yield "s3://bucket"
    server.stop()


@pytest.mark.filterwarnings("default")
def test_an_object_store(tmp_path: Path, two_actors: None, bucket: str):
    files: Any = fsspec.filesystem("s3")
    names = ["a.png", "sub/a.png", "sub/b.png"]
    for number, name in enumerate(names):
        files.pipe_file(f"{bucket}/photos/{name}", encoded(number))
    files.put_file(str(make_archive(tmp_path / "shard.tar", names)), f"{bucket}/photos/shard.tar")
    files.pipe_file(f"{bucket}/photos/bad.png", b"no picture")
    expected = translated(tmp_path / "plain", names)
    deadly = Deadly(tiny(), tmp_path / "killed").eval()
    report = translate_on_cluster(deadly, [f"{bucket}/photos"], f"{bucket}/out", actors=1, cores=1)
    assert (tmp_path / "killed").exists()
    assert (report.written, report.skipped) == (4, 0)
    assert report.problems == [f"cannot read the image {bucket}/photos/bad.png: it is not an image that Pillow knows"]
    files.invalidate_cache()
    (tmp_path / "got.tar").write_bytes(files.cat_file(f"{bucket}/out/shard.tar"))
    assert contents(tmp_path / "got.tar") == expected
    assert {str(path).split("/out/")[1] for path in files.find(f"{bucket}/out")} == {*expected, "shard.tar"}
    for name, content in expected.items():
        assert files.cat_file(f"{bucket}/out/{name}") == content

    files.rm_file(f"{bucket}/photos/bad.png")
    report = translate_on_cluster(tiny(), [f"{bucket}/photos"], f"{bucket}/out", actors=1, cores=1)
    assert (report.written, report.skipped, report.problems) == (0, 4, [])
