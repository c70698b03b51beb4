"""The command ``ganparts``: one file a command, which registers itself.

A command is a function of annotated arguments, decorated with ``@app.command``; what it returns is the exit code. A
mistake is an exception with one clear sentence, which is printed without a trace unless ``--debug`` comes first:
``ganparts --debug doctor``.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from ganparts.allocation import keep_freed_memory
from ganparts.cli import demo, doctor, evaluate, export, import_published, parts, submission, translate
from ganparts.cli.app import app, console

__all__ = ["main"]

_COMMANDS = (
    parts,
    doctor,
    translate,
    evaluate,
    submission,
    import_published,
    export,
    demo,
)  # imported to register themselves


def main() -> None:
    """Run the command line; one line for a mistake, and exit code 1."""
    arguments = sys.argv[1:]
    debug = arguments[:1] == ["--debug"]
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        with _ending_as_ctrl_c_does("SIGTERM", "SIGHUP"):
            code = app.cli(
                prog="ganparts",
                description="Parts of GANs for translating images.",
                args=arguments[1:] if debug else arguments,
            )
    except KeyboardInterrupt:
        with suppress(OSError):  # after SIGHUP there may be no terminal
            console.print("Interrupted.")
        code = 130
    except (KeyError, ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if debug:
            raise
        console.print(f"error: {error}")
        code = 1
    sys.exit(code)


@contextmanager
def _ending_as_ctrl_c_does(*names: str) -> Iterator[None]:
    """Let signals end a command in order, too, unless they are ignored, as nohup has it."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    in_main = threading.current_thread() is threading.main_thread()
    changed = [number for number in numbers if in_main and signal.getsignal(number) is signal.SIG_DFL]

    def interrupt(*_: object) -> None:
        for number in changed:  # a second one does not disturb the end
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in changed:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)
