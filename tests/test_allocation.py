"""Memory of freed tensors is used again, in the recipes and the command, unless the environment configures malloc."""

import os
import platform
import subprocess
import sys
from textwrap import dedent

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory when asked")

CALLS = {
    "the function": "from ganparts.allocation import keep_freed_memory; assert keep_freed_memory()",
    "the command": """
        import sys
        from contextlib import suppress
        from ganparts.cli import main
        sys.argv = ["ganparts", "--help"]
        with suppress(SystemExit):
            main()
    """,
    "training": """
        from ganparts.training import choose_policy
        choose_policy(torch.device("cpu")).set_backends()
    """,
}
COUNT = """
import resource, torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
{call}
faults()
print("faults", faults())
"""


def faults(call: str, environment: dict[str, str] | None = None) -> int:
    """Pages that the system gives for eight tensors, one after the other, in a process that made a call before."""
    code = COUNT.format(call=dedent(call))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | (environment or {}), capture_output=True, text=True, check=True
    )
    return int(done.stdout.split("faults")[-1])


@pytest.mark.parametrize("call", CALLS)
def test_memory_is_kept(call: str):
    assert faults(CALLS[call]) < 20  # the least, in pages of 2 MiB, would be 256


def test_what_the_environment_configures_is_left_alone():
    call = "from ganparts.allocation import keep_freed_memory; assert not keep_freed_memory()"
    assert faults(call, {"MALLOC_CHECK_": "0"}) >= 256
