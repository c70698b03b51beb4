"""Two machines that train one model: network namespaces, joined by a cable that a test can pull out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_distributed import RANDOM, ROOT, assert_same_end, checkpoint, folders, recipe

__all__ = ["folders"]  # a fixture


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Names of two network namespaces: 10.77.0.1 and 10.77.0.2, their ends of the cable ``cable``."""
    names = (f"ganparts{os.getpid()}a", f"ganparts{os.getpid()}b")
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        for name in made:
            ip("netns", "del", name)
        pytest.skip(f"no right to make network namespaces here: {getattr(error, 'stderr', error)}")
    yield names
    for name in names:
        ip("netns", "del", name)


PULLED = """
import os, subprocess
import ganparts.distributed as distributed
import ganparts.training.planning as planning
import ganparts.training.loop as loop
from ganparts.adversarial import MemoryNeed, MemoryPlan

distributed._BEAT, distributed._SILENCE = 0.3, 3.0
planning.plan_memory = lambda *_, **__: MemoryPlan("fast", MemoryNeed(2.0**20, 2.0**20))
once = loop.Loop._train_once

def train_once(self, batch, number):
    if (number, os.environ["RANK"], os.environ.get("PULL")) == (4, "1", "yes"):
        subprocess.run(["ip", "link", "set", "cable", "down"], check=True)
    return once(self, batch, number)

loop.Loop._train_once = train_once
"""


def train(hosts: tuple[str, str], folder: Path, *options: str, pull: bool = False) -> list[tuple[int, str]]:
    """Exit codes and outputs of torchrun on both machines."""
    environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable"}
    environment |= {"PULL": "yes" if pull else "no"}
    started = []
    for number, host in enumerate(hosts):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number)]
        torchrun += ["--master-addr", "10.77.0.1", "--master-port", "29500", "--nproc-per-node", "1"]
        command = ["ip", "netns", "exec", host, *torchrun, str(ROOT / "recipes" / "cyclegan_monet.py"), *options]
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=os.environ | environment, **piped))  # type: ignore[call-overload]
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
        return [(process.returncode, text) for process, text in zip(started, said, strict=True)]
    finally:
        for process in started:
            process.kill()


FAULTY = """
import os
import ganparts.training.planning as planning
import ganparts.training.loop as loop
from ganparts.adversarial import MemoryNeed, MemoryPlan

planning.plan_memory = lambda *_, **__: MemoryPlan("fast", MemoryNeed(2.0**20, 2.0**20))
once = loop.Loop._train_once

def train_once(self, batch, number):
    if number == 2 and os.environ["RANK"] == os.environ["FAULTY"]:
        raise OSError("the disk is gone")
    return once(self, batch, number)

loop.Loop._train_once = train_once
"""


@pytest.mark.parametrize("faulty", [0, 1])
def test_an_error_on_one_machine_is_said_on_both(
    hosts: tuple[str, str], tmp_path: Path, folders: tuple[str, ...], faulty: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAULTY", str(faulty))
    (tmp_path / "faulty.py").write_text(FAULTY)
    ends = train(hosts, tmp_path, *RANDOM, *folders, "--imports", "faulty", "--out", str(tmp_path / "run"))
    assert [code for code, _ in ends] == [1, 1]
    there, elsewhere = (said.partition("Root Cause") for _, said in (ends[faulty], ends[1 - faulty]))
    assert re.findall("^error.*", there[0], re.MULTILINE) == [f"error (process {faulty}): the disk is gone"]
    expected = f"error on another machine (process {faulty}): the disk is gone"
    assert re.findall("^error.*", elsewhere[0], re.MULTILINE) == [expected]
    for _, _, report in (there, elsewhere):  # torchrun's
        assert "the disk is gone" in report


def test_a_machine_that_is_cut_off_ends_the_run_which_goes_on_bit_for_bit(
    hosts: tuple[str, str], tmp_path: Path, folders: tuple[str, ...]
):
    (tmp_path / "pulled.py").write_text(PULLED)
    out = tmp_path / "run"
    options = (*RANDOM, *folders, "--imports", "pulled", "--out", str(out))
    for number, (code, said) in enumerate(train(hosts, tmp_path, *options, pull=True)):
        said = " ".join(said.split())
        assert code == 1, said
        other = f"error (process {number}): nothing was heard from process {1 - number} for 3 s"
        assert said.count(other) == said.count("error (process") == 1, said
        assert f"the last checkpoint in {out} is whole, and --resume {out} goes on" in said
    assert checkpoint(out)["step"] == 3
    ip("-n", hosts[1], "link", "set", "cable", "up")
    for code, said in train(hosts, tmp_path, "--imports", "pulled", "--resume", str(out)):
        assert code == 0, said
    recipe(tmp_path, *RANDOM, *folders, "--out", tmp_path / "whole")
    assert_same_end(out, tmp_path / "whole")
