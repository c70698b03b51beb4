"""Data larger than memory: shards, their order, and folders of very many files."""

from __future__ import annotations

import gzip
import importlib
import io
import os
import pickle
import random
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Recipe
from PIL import Image
from torch import Tensor

from ganparts.backbones import UnavailableError
from ganparts.data import (
    AlignedPairs,
    DataError,
    PairDataset,
    UnreadableImageError,
    load_pairs,
    open_aligned,
    open_domains,
    open_images,
)
from ganparts.data import listing as listings
from ganparts.data import sources as opening
from ganparts.data.entries import Entries
from ganparts.data.files import File
from ganparts.data.order import LANES, Blocks, Lanes, Permutation, lanes_touched, shuffled
from ganparts.data.parquet import ParquetShard
from ganparts.data.shards import ShardSource, shards_of

PLAIN: dict[str, Any] = {"resize": None, "crop": 8, "flip": False}


def encoded(number: int, size: int = 8) -> bytes:
    """A PNG whose colour tells its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def number_of(image: Tensor) -> int:
    return int(image[0, 0, 0]) + 256 * int(image[1, 0, 0])


def numbers_of(images: Tensor) -> list[int]:
    """Of a batch in [-1, 1]."""
    return [number_of(((image + 1) * 127.5).round()) for image in images]


def write_parquet(path: Path, numbers: Sequence[int], *, group: int = 10, **columns: Sequence[bytes | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": encoded(number), "path": f"im/{number:05}.png"} for number in numbers]
    others = {name: [{"bytes": data, "path": None} for data in values] for name, values in columns.items()}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = {name: pa.array(values, kind) for name, values in {"image": images, **others}.items()}
    pq.write_table(pa.table({**arrays, "label": list(numbers)}), path, row_group_size=group)
    return path


def write_tar(path: Path, numbers: Sequence[int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number in numbers:
            long = "folder/" * (20 * (number % 3 == 0))  # such names have headers of their own
            for name, data in ((f"{long}{number:05}.png", encoded(number)), (f"{number:05}.json", b"{}")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def write_saved(folder: Path, counts: Sequence[int], *, batch: int = 10) -> Path:
    """What ``datasets.Dataset.save_to_disk`` leaves."""
    folder.mkdir(parents=True)
    first, names = 0, []
    for shard, count in enumerate(counts):
        names.append(f"data-{shard:05}-of-{len(counts):05}.arrow")
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": encoded(number), "path": f"{number:05}.png"} for number in range(first, first + count)]
        table = pa.table({"image": pa.array(rows, kind)})
        with pa.ipc.new_stream(str(folder / names[-1]), table.schema) as writer:
            writer.write_table(table, max_chunksize=batch)
        first += count
    listed = ", ".join(f'{{"filename": "{name}"}}' for name in names)
    (folder / "state.json").write_text(f'{{"_data_files": [{listed}]}}')
    (folder / "dataset_info.json").write_text("{}")
    return folder


def parquet_set(folder: Path, count: int = 240, shards: int = 4) -> str:
    for shard in range(shards):
        write_parquet(folder / f"{shard:03}.parquet", range(shard * count // shards, (shard + 1) * count // shards))
    return str(folder)


def tar_set(folder: Path, count: int = 240, shards: int = 4) -> str:
    for shard in range(shards):
        write_tar(folder / f"{shard:03}.tar", range(shard * count // shards, (shard + 1) * count // shards))
    return str(folder / f"{{000..{shards - 1:03}}}.tar")


def saved_set(folder: Path, count: int = 240, shards: int = 4) -> str:
    return f"hf:{write_saved(folder, [count // shards] * shards)}"


KINDS: dict[str, Callable[..., str]] = {"parquet": parquet_set, "tar": tar_set, "saved": saved_set}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANPARTS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ganparts.data.tar._BLOCK", 10)


# --- order


@pytest.mark.parametrize("trial", range(40))
def test_every_image_comes_once_an_epoch_whatever_the_blocks(trial: int):
    draws = random.Random(trial)
    starts = [0]
    for _ in range(draws.randrange(1, 40)):
        starts.append(starts[-1] + draws.randrange(9))
    starts[-1] += 1  # at least one image
    options = {"chunk": draws.choice([1, 2, 3, 5]), "processes": draws.choice([1, 2, 3])}
    lanes = Lanes(Blocks(starts, draws.choice([1, 24, 60, 1000])), key="x", **options)
    for epoch in range(3):
        shown = [lanes[epoch * starts[-1] + place] for place in range(starts[-1])]
        assert sorted(shown) == list(range(starts[-1]))


def test_orders_depend_on_seed_and_epoch_and_stay_within_few_blocks():
    starts = range(0, 100 * 200 + 1, 100)
    lanes = Lanes(Blocks(starts, 12 * 250), key="0 a")
    size = starts[-1]
    epochs = [[lanes[epoch * size + place] for place in range(size)] for epoch in range(2)]
    other = Lanes(Blocks(starts, 12 * 250), key="1 a")
    assert epochs[0] != epochs[1]
    assert epochs[0] != [other[place] for place in range(size)]
    first = [{number // 100 for number in epoch[: 5 * LANES]} for epoch in epochs]
    assert len(first[0] & first[1]) < len(first[0]) / 2  # lanes begin with other blocks
    lane = [number // 100 for number in epochs[0][::LANES]]  # of chunks of one image
    for window in range(0, len(lane), 250):
        assert len(set(lane[window : window + 250])) <= 4  # blocks, of which 3 or 4 overlap with a window
    # no run of neighbours is left: the mean step between images of a lane is that of random rows of few blocks
    steps = [abs(one - two) for one, two in pairwise(epochs[0][::LANES])]
    assert sum(step == 1 for step in steps) < len(steps) / 30
    # and a window smaller than a block has rows from all over it
    lanes = Lanes(Blocks(starts, 12 * 5), key="0 a")
    rows = [lanes[LANES * place] % 100 for place in range(40)]
    assert max(max(rows[at : at + 5]) - min(rows[at : at + 5]) for at in range(0, 40, 5)) > 50


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 6, 12])
def test_worker_processes_of_all_training_processes_have_lanes_of_their_own(workers: int):
    processes, batch_size = 5, 4
    lanes = Lanes(Blocks(range(0, 10_001, 10), 240), key="x", chunk=batch_size, processes=processes)
    owners: dict[int, tuple[int, int]] = {}
    blocks: dict[tuple[int, int], set[int]] = {}
    for step in range(10_000 // (processes * batch_size)):
        for rank in range(processes):
            first, worker = (step * processes + rank) * batch_size, (rank, step % workers)
            assert owners.setdefault(first // batch_size % lanes.lanes, worker) == worker
            blocks.setdefault(worker, set()).update(lanes[first + place] // 10 for place in range(batch_size))
    assert len(owners) == processes * workers * lanes_touched(workers) == lanes.lanes
    assert sum(map(len, blocks.values())) <= 1000 + lanes.lanes  # where lanes meet, both read


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 1025, 5000])
def test_a_computed_order_has_every_number_once(size: int):
    one, two = (list(Permutation(size, key)) for key in "ab")
    assert sorted(one) == sorted(two) == list(range(size))
    assert size < 100 or (one != two and one != sorted(one))
    assert Permutation(size, "a")[-1] == one[-1]
    assert isinstance(shuffled(0, 1, 2**20 + size), Permutation)
    with pytest.raises(IndexError):
        Permutation(size, "a")[size]


# --- reading


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_blocks")
def test_images_of_shards_are_read_wherever_they_lie(tmp_path: Path, kind: str):
    images = open_images(KINDS[kind](tmp_path / "set"))
    assert len(images) == 240
    source = shards_of(images)
    assert source is not None
    assert list(source.blocks.starts) == list(range(0, 241, 10))
    for index in (0, 9, 10, 59, 60, 239, -1, 123, 3, 30, 34, 150):  # 30 and 150 have long names in tar files
        assert number_of(images[index]) == index % 240
        assert images.entries[index].name == f"{index % 240:05}"
        assert images.entries[index].dimensions() == (8, 8)
    assert [name for name, _ in images.readable(3)] == ["00000", "00001", "00002"]
    assert "image 3 (counted from 0)" in str(images[60:].entries[3])
    again = pickle.loads(pickle.dumps(images))
    assert number_of(again[77]) == 77


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_blocks")
def test_loading_from_any_step_is_as_if_it_had_never_stopped(tmp_path: Path, kind: str):
    address = KINDS[kind](tmp_path / "a")
    photos = f"{address}(buffer=60)" if kind != "saved" else f"{address}(split=train, buffer=60)"
    paintings = parquet_set(tmp_path / "b", 90, 2)

    def loaded(start: int, steps: int, workers: int = 0) -> list[tuple[list[int], list[int]]]:
        domains = open_domains(photos=photos, paintings=paintings)
        dataset = PairDataset(domains.a, domains.b, seed=3, batch_size=4, **PLAIN)
        batches = load_pairs(dataset, batch_size=4, start=start, steps=steps, workers=workers)
        return [(numbers_of(batch.a), numbers_of(batch.b)) for batch in batches]

    whole = loaded(0, 120)  # two epochs of photos, more than five of paintings
    for epoch in range(2):
        assert sorted(n for a, _ in whole[60 * epoch : 60 * (epoch + 1)] for n in a) == list(range(240))
    assert Counter(n for _, b in whole[:45] for n in b) == dict.fromkeys(range(90), 2)
    assert [a for a, _ in whole[:60]] != [a for a, _ in whole[60:]]
    for start in (7, 61):
        assert loaded(start, start + 20) == whole[start : start + 20]
    assert loaded(55, 67, workers=2) == whole[55:67]


def test_processes_and_workers_share_an_epoch_and_read_each_block_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two training processes with two workers each: real worker processes, which write down what they read."""
    place = parquet_set(tmp_path / "a", 960, 4)
    monkeypatch.setattr("ganparts.data.pairs.processes", lambda: 2)
    monkeypatch.setattr("ganparts.data.loading.processes", lambda: 2)
    read = ParquetShard.read

    def noted(shard: ParquetShard, block: int) -> Any:
        with (tmp_path / f"read_{os.getpid()}").open("a") as file:
            file.write(f"{Path(shard.file.path).stem} {block}\n")
        return read(shard, block)

    monkeypatch.setattr(ParquetShard, "read", noted)
    shown = []
    for rank in range(2):
        monkeypatch.setattr("ganparts.data.loading.rank", lambda rank=rank: rank)
        a, b = (open_images(f"{place}(buffer=240)") for _ in range(2))
        dataset = PairDataset(a, b, batch_size=5, **PLAIN)
        assert [lanes and lanes.lanes for lanes in dataset._lanes] == [2 * LANES] * 2
        shown.append([numbers_of(batch.a) for batch in load_pairs(dataset, batch_size=5, steps=96, workers=2)])
    assert sorted(n for batches in shown for batch in batches for n in batch) == list(range(960))
    readers = [path.read_text().splitlines() for path in tmp_path.glob("read_*")]
    assert len(readers) == 4
    # each domain reads its own; blocks where lanes meet are read for both of them
    assert sum(map(len, readers)) <= 2 * (96 + 2 * LANES)
    assert all(len(blocks) <= 2 * (24 + LANES) for blocks in readers)


@pytest.mark.usefixtures("small_blocks")
def test_going_on_reads_no_more_than_a_buffer_and_keeps_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = open_images(f"{parquet_set(tmp_path / 'a', 960, 2)}(buffer=120)")
    reads, read = [], ParquetShard.read
    monkeypatch.setattr(ParquetShard, "read", lambda shard, block: reads.append(block) or read(shard, block))
    source = shards_of(images)
    assert source is not None
    dataset = PairDataset(images, images[:1], batch_size=2, **PLAIN)
    for _ in islice(load_pairs(dataset, batch_size=2, start=200, steps=480), 1):
        assert len(reads) <= 4  # two images of one lane, and its only painting
    most = 0
    for _ in load_pairs(dataset, batch_size=2, start=200, steps=480):
        most = max(most, sum(map(len, source._kept._blocks.values())))
    assert most <= LANES * (120 // LANES + 2 * 10)
    assert len(reads) < 2 * 96  # 56 steps are of blocks that are read in part


def test_pairs_that_are_held_are_those_that_are_read(tmp_path: Path):
    images = open_images(parquet_set(tmp_path / "a", 60, 2))
    dataset = PairDataset(images, images[:7], seed=5, batch_size=2, resize=8, crop=8)
    held = dataset.on_device("cpu")
    assert held.is_held
    for position in range(130):
        assert all(map(torch.equal, dataset[position], held[position]))


@pytest.mark.usefixtures("small_blocks")
def test_braces_in_the_name_of_a_folder_that_is_there_are_part_of_it(tmp_path: Path):
    for name, numbers in (("set{v2}", [7]), ("setv2", [8, 9]), ("{550e-84}", [5])):
        (tmp_path / name).mkdir()
        write_parquet(tmp_path / name / "x.parquet", numbers)
        for place in (tmp_path / name, tmp_path / name / "x.parquet"):
            assert [number_of(image) for image in open_images(place)] == numbers


def test_shards_elsewhere_are_read_by_address_and_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("0.tar", "1.tar"):
        memory.pipe(
            f"/far/{name}", write_tar(tmp_path / name, range(30 * int(name[0]), 30 * int(name[0]) + 30)).read_bytes()
        )
    memory.pipe("/far/0.parquet", write_parquet(tmp_path / "0.parquet", range(20)).read_bytes())
    assert [number_of(image) for image in open_images("memory://far/0.parquet")] == list(range(20))
    for pattern in ("memory://far/{0..1}.tar", "memory://far/*.tar"):
        images = open_images(pattern)
        assert [number_of(image) for image in images] == list(range(60))
    monkeypatch.setattr("ganparts.data.indexing.open_tar", None)  # not gone through again
    monkeypatch.chdir(tmp_path)  # wherever a program runs
    assert [number_of(image) for image in open_images("memory://far/*.tar")] == list(range(60))
    with pytest.raises(DataError, match=r"cannot find memory://far/9\.tar"):
        open_images("memory://far/9.tar")


def test_a_network_that_fails_for_a_moment_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/weak/0.parquet", write_parquet(tmp_path / "0.parquet", range(20)).read_bytes())
    monkeypatch.setattr("ganparts.data.shards._WAITS", (0, 0))
    tries, read = [], ParquetShard.read

    def weak(shard: ParquetShard, block: int) -> Any:
        tries.append(block)
        if len(tries) % 3:
            raise TimeoutError("the network is slow")
        return read(shard, block)

    monkeypatch.setattr(ParquetShard, "read", weak)
    assert [number_of(image) for image in open_images("memory://weak/0.parquet")] == list(range(20))
    assert tries == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UnreadableImageError, match=r"0\.parquet, image 0 \(counted from 0\): the network is slow"):
        open_images(tmp_path / "0.parquet")[0]  # a file of this machine is read once


def test_a_data_set_of_the_hub_is_opened_by_the_library_datasets(tmp_path: Path):
    """From folders on this machine, in the Hub's layout and as the library saves them."""
    import datasets

    for split, count in (("train", 12), ("test", 5)):
        write_parquet(tmp_path / "repo" / "data" / f"{split}-00000-of-00001.parquet", range(count))
    assert len(open_images(f"hf:{tmp_path / 'repo'}")) == 12
    images = open_images(f"hf:{tmp_path / 'repo'}(split=test, column=image)")
    assert [number_of(image) for image in images] == list(range(5))
    with pytest.raises(DataError, match=r"repo has no split 'val': name one of train, test"):
        open_images(f"hf:{tmp_path / 'repo'}(split=val)")
    features = datasets.Features(image=datasets.Image())
    rows = [Image.open(io.BytesIO(encoded(number))) for number in range(7)]
    whole = datasets.Dataset.from_dict({"image": rows}, features=features)
    datasets.disable_progress_bars()
    datasets.DatasetDict(train=whole, test=whole.select(range(2))).save_to_disk(tmp_path / "saved")
    for place in (f"hf:{tmp_path / 'saved'}", tmp_path / "saved"):
        assert [number_of(image) for image in open_images(place)] == list(range(7))
    assert len(open_images(f"{tmp_path / 'saved'}(split=test)")) == 2


def test_a_buffer_that_nobody_chose_takes_a_gibibyte_at_most():
    shard = Mock(file=File("x.parquet", 2**34), counts=[100] * 20)
    assert ShardSource("x", [shard]).blocks.buffer == 2**30 // (2**34 // 2000)
    shard.file = File("x.parquet", 2**20)
    assert ShardSource("x", [shard]).blocks.buffer == 4096
    assert ShardSource("x", [shard], buffer=9).blocks.buffer == 9


# --- domains and aligned pairs


def test_both_domains_come_from_two_columns_or_splits(tmp_path: Path):
    photos, paintings = tmp_path / "two.parquet", [encoded(1000 + number) for number in range(20)]
    write_parquet(photos, range(20), painting=paintings)
    domains = open_domains(photos)
    assert [number_of(images[3]) for images in (domains.a, domains.b)] == [3, 1003]
    assert domains.summary() == "20 photos (two.parquet), 20 paintings (two.parquet)"
    write_parquet(tmp_path / "folder" / "0.parquet", range(5), painting=paintings[:5])
    assert [
        len(images) for images in (open_domains(tmp_path / "folder").b, open_aligned(tmp_path / "folder").train)
    ] == [5, 5]
    domains = open_domains(f"{photos}(a=painting, b=image)")
    assert [number_of(images[3]) for images in (domains.a, domains.b)] == [1003, 3]
    with pytest.raises(DataError, match=r"one\.parquet needs two columns of images and has image: name them"):
        open_domains(write_parquet(tmp_path / "one.parquet", range(3)))
    for folder, count in (("trainA", 6), ("trainB", 4), ("testA", 2)):
        write_parquet(tmp_path / "layout" / folder / "0.parquet", range(count))
    domains = open_domains(tmp_path / "layout")
    assert (len(domains.a), len(domains.b), len(domains.test_a or ()), domains.test_b) == (6, 4, 2, None)
    assert [name for name, _ in domains.photos().readable(3)] == ["00000", "00001", "00000"]


def test_rows_of_two_columns_are_aligned_pairs(tmp_path: Path):
    place = write_parquet(tmp_path / "two.parquet", range(40), target=[encoded(1000 + n) for n in range(40)])
    for domains in (
        open_aligned(place),
        open_aligned(a=f"{place}(column=image)", b=f"{place}(column=target)"),
    ):
        dataset = AlignedPairs(domains.train, seed=1, batch_size=3, **PLAIN)
        shown = [tuple(map(number_of, dataset[position])) for position in range(80)]
        assert sorted(shown[:40]) == sorted(shown[40:]) == [(n, n + 1000) for n in range(40)]
        assert shown[:40] != shown[40:]
        held = dataset.on_device("cpu")
        assert [tuple(map(number_of, held[position])) for position in range(80)] == shown
        assert domains.summary() == "40 aligned pairs (two.parquet)"
    with pytest.raises(DataError, match=r"has 40 images and .* has 3: in shards, rows of one number pair"):
        open_aligned(a=f"{place}(column=image)", b=write_parquet(tmp_path / "few.parquet", range(3)))


def test_a_digest_of_shards_tells_others_apart_and_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ParquetShard, "read", None)
    place = Path(parquet_set(tmp_path / "a", 40, 2))
    digest = open_domains(photos=place, paintings=place).digest()
    place = place.rename(tmp_path / "moved")
    assert open_domains(photos=place, paintings=place).digest() == digest
    write_parquet(place / "001.parquet", range(19))
    assert open_domains(photos=place, paintings=place).digest() != digest


def test_a_few_images_are_taken_from_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    domains = open_domains(photos=parquet_set(tmp_path / "a", 960, 2), paintings=tmp_path / "a")
    reads, read = [], ParquetShard.read
    monkeypatch.setattr(ParquetShard, "read", lambda shard, block: reads.append(block) or read(shard, block))
    some = domains.reference(25)
    numbers = {number_of(image) for image in some}
    assert len(numbers) == len(some) == 25
    assert max(numbers) > 60  # not the first ones
    assert len(reads) == 3
    assert PairDataset(domains.a, domains.b, **PLAIN).nbytes == 2 * 960 * 3 * 8 * 8
    assert len(reads) <= 3 + 2 * 7
    assert len(domains.reference()) == 960


# --- what is wrong is said


def broken(path: Path, *, offset: int = 0) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + 64] = b"x" * 64
    path.write_bytes(data)
    return path


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such column": (
        lambda folder: f"{write_parquet(folder / 'x.parquet', range(3))}(column=picture)",
        r"x\.parquet has no column 'picture': its columns are image, label",
    ),
    "a column of numbers": (
        lambda folder: f"{write_parquet(folder / 'x.parquet', range(3))}(column=label)",
        r"the column 'label' of .*x\.parquet holds int64, no encoded images",
    ),
    "an option misspelt": (
        lambda folder: f"{write_parquet(folder / 'x.parquet', range(3))}(colum=image)",
        r"has no option 'colum=image' \(did you mean 'column'\?\)",
    ),
    "a name that is too long for a file": (
        lambda folder: f"{'x' * 5000}.parquet(buffer=5)",
        r"^x{40}\.\.\.: a name in this path is too long for a file$",
    ),
    "no buffer": (
        lambda folder: f"{write_parquet(folder / 'x.parquet', range(3))}(buffer=0)",
        r"buffer=0 is not a number of images",
    ),
    "a damaged Parquet file": (
        lambda folder: write_parquet(folder / "x.parquet", range(3)).write_bytes(b"PAR1" * 9) and folder / "x.parquet",
        r"cannot read the shard .*x\.parquet: .*Fetch it again, or leave .*--skip-unreadable",
    ),
    "a damaged tar file": (
        lambda folder: broken(write_tar(folder / "x.tar", range(9)), offset=2048),
        r"cannot read the shard .*x\.tar: there is no header of a member at byte 2,048",
    ),
    "half a tar file": (
        lambda folder: os.truncate(write_tar(folder / "x.tar", range(9)), 2100) or folder / "x.tar",
        r"cannot read the shard .*x\.tar: .*--skip-unreadable",
    ),
    "a compressed tar file": (
        lambda folder: (folder / "x.tar.gz").write_bytes(gzip.compress(b"x" * 999)) and folder / "x.tar.gz",
        r"x\.tar\.gz: it is compressed, so no place in it can be found: decompress it first",
    ),
    "an empty set": (lambda folder: write_parquet(folder / "x.parquet", []), r"x\.parquet has no images"),
    "an empty tar file": (lambda folder: write_tar(folder / "x.tar", []), r"x\.tar has no images: .*\.jpg"),
    "no file": (lambda folder: folder / "*.parquet", r"there is no file .*\*\.parquet: check the pattern"),
    "one file of several": (
        lambda folder: write_tar(folder / "0.tar", range(2)).parent / "{0..1}.tar",
        r"cannot find .*1\.tar: No such file",
    ),
    "no data set": (lambda folder: "hf:nothing", "hf:nothing is not a data set: give hf:owner/name"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_remedy(tmp_path: Path, mistake: str):
    make, message = MISTAKES[mistake]
    tmp_path.joinpath("in").mkdir()
    with pytest.raises(DataError, match=message) as raised:
        open_images(str(make(tmp_path / "in")))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("module", "place"), [("pyarrow", "x.parquet"), ("datasets", "hf:owner/name")])
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, place: str):
    write_parquet(tmp_path / "x.parquet", range(3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnavailableError, match=rf"^reading .* needs {module}, .*: pip install 'ganparts\[stream\]'"):
        open_images(place)


def test_what_cannot_be_read_is_named_or_skipped(tmp_path: Path):
    write_parquet(
        tmp_path / "a" / "0.parquet", range(8), image=[encoded(0), b"no image", None, *map(encoded, range(3, 8))]
    )
    write_tar(tmp_path / "b.tar", range(3)).write_bytes(b"no tar")
    images = open_images(tmp_path / "a")
    with pytest.raises(
        UnreadableImageError, match=r"0\.parquet, image 1 \(counted from 0\): it is not an image .*--skip-u"
    ):
        images[1]
    with pytest.raises(UnreadableImageError, match=r"image 2 \(counted from 0\): it is empty"):
        images[2]
    images = open_images(tmp_path / "a", skip_unreadable=True)
    with pytest.warns(UserWarning, match="skipped: cannot read the image"):
        assert number_of(images[1]) == 3
    # a shard whose beginning is damaged, and one of which a block is
    write_parquet(tmp_path / "c" / "0.parquet", range(20))
    broken(write_parquet(tmp_path / "c" / "1.parquet", range(20, 40)), offset=4)
    write_parquet(tmp_path / "c" / "2.parquet", range(3)).write_bytes(b"no Parquet")
    with pytest.warns(UserWarning, match=r"left out: cannot read the shard .*2\.parquet"):
        images = open_images(tmp_path / "c", skip_unreadable=True)
    assert len(images) == 40
    with pytest.warns(UserWarning, match=r"skipped: cannot read the image .*1\.parquet, image \d"):
        assert number_of(images[23]) == 30


def test_files_that_rows_name_are_read_if_they_are_plain_files_here(tmp_path: Path):
    (there := tmp_path / "there.png").write_bytes(encoded(5))
    os.mkfifo(tmp_path / "pipe.png")
    rows = [{"bytes": None, "path": name} for name in ("there.png", "pipe.png", "absent.png", "/dev/zero", str(there))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "0.parquet")
    images = open_images(tmp_path / "0.parquet")
    assert number_of(images[0]) == number_of(images[4]) == 5
    for place in (1, 2, 3):
        with pytest.raises(UnreadableImageError, match=rf"image {place} \(counted from 0\): it is empty"):
            images[place]
    memory = fsspec.filesystem("memory")
    memory.pipe("/far/named.parquet", (tmp_path / "0.parquet").read_bytes())
    for place in (0, 4):
        with pytest.raises(UnreadableImageError, match=rf"image {place} \(counted from 0\): it is empty"):
            open_images("memory://far/named.parquet")[place]


# --- folders of very many files


def test_a_folder_of_very_many_files_is_listed_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(60):
        (tmp_path / f"{number * 37 % 60}{'é' * (number % 2)}.png").write_bytes(encoded(number))
    plain = open_domains(photos=tmp_path, paintings=tmp_path)
    assert [entry.path for entry in plain.a.entries] == sorted(tmp_path.iterdir())
    monkeypatch.setattr(opening, "_LISTED", 10)
    monkeypatch.setattr(listings, "_AT_A_TIME", 7)
    many = open_domains(photos=tmp_path, paintings=tmp_path)
    assert isinstance(many.a.entries, Entries)
    assert list(many.a.entries) == plain.a.entries
    assert list(many.a[3:50:4].entries) == plain.a[3:50:4].entries
    assert list(many.photos().entries) == plain.a.entries
    assert many.digest() == plain.digest()
    monkeypatch.setattr(listings, "_SIZES", 20)  # of every third file
    some = many.digest()
    (tmp_path / "0.png").write_bytes(b"changed")  # the first
    assert many.digest() != some != plain.digest()
    assert many.a[5:].entries[0] == plain.a.entries[5]
    assert PairDataset(many.a, many.b).nbytes == PairDataset(plain.a, plain.b).nbytes
    assert torch.equal(
        PairDataset(many.a, many.b, crop=8, resize=8)[7][0], PairDataset(plain.a, plain.b, crop=8, resize=8)[7][0]
    )
    assert len(many.reference(20)) == 20


# --- the recipe


@pytest.mark.usefixtures("small_blocks")
def test_a_killed_run_of_the_recipe_goes_on_with_the_same_images(tmp_path: Path, recipe: Recipe):
    recipe.module = importlib.import_module("recipes.cut_monet")
    photos = tar_set(tmp_path / "photos", 40, 2)
    options = (
        *("--photos", f"{photos}(buffer=12)", "--paintings", parquet_set(tmp_path / "paintings", 20, 1)),
        *("--generator", "resnet6", "--width", 2, "--resize", 32, "--crop", 32, "--device", "cpu", "--paint", 1),
        *("--discriminator", "pixel", "--batch-size", 2, "--steps", 6, "--checkpoint-every", 2, "--log-every", 1),
        *("--hold-data", "off"),
    )
    said = recipe(*options, "--out", tmp_path / "whole")
    assert "Data: 40 photos, 20 paintings" in said
    recipe.killed(5, *options, "--out", tmp_path / "parted")
    recipe("--resume", tmp_path / "parted", "--workers", 1)
    whole, parted = (torch.load(tmp_path / out / "checkpoint.pt")["states"] for out in ("whole", "parted"))
    torch.testing.assert_close(parted, whole, rtol=0, atol=0)


def test_a_mistake_in_shards_ends_the_recipe_in_one_sentence(tmp_path: Path, recipe: Recipe):
    place = write_parquet(tmp_path / "x.parquet", range(3))
    said = recipe("--photos", f"{place}(column=no)", "--paintings", place, "--steps", 1, "--device", "cpu", code=1)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "x.parquet has no column 'no': its columns are image, label" in error
