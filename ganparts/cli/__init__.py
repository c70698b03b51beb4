"""The command ``ganparts``: one file a command, which registers itself.

A command is a function of annotated arguments, decorated with ``@app.command``; what it returns is the exit code. A
mistake is an exception with one clear sentence, which is printed without a trace unless ``--debug`` comes first:
``ganparts --debug doctor``.
"""

from __future__ import annotations

import signal
import sys
import threading

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
    _end_as_ctrl_c_does("SIGTERM", "SIGHUP")
    try:
        code = app.cli(
            prog="ganparts",
            description="Parts of GANs for translating images.",
            args=arguments[1:] if debug else arguments,
        )
    except KeyboardInterrupt:
        console.print("Interrupted.")
        code = 130
    except (KeyError, ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if debug:
            raise
        console.print(f"error: {error}")
        code = 1
    sys.exit(code)


def _end_as_ctrl_c_does(*names: str) -> None:
    """Let signals end a command in order, too, unless they are ignored, as nohup has it."""
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
