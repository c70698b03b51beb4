"""What every recipe's command does around its training: options, console, and readable errors."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import ENOSPC
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rich.console import Console

from ganparts.distributed import (
    PeerLostError,
    first_to_speak,
    from_first,
    is_first,
    join,
    leave,
    leave_word,
    local_rank,
    processes,
    rank,
    wait_for_all,
    watch,
    word_from_elsewhere,
)
from ganparts.registry import UnknownPartError
from ganparts.training.capture import CaptureError
from ganparts.training.checkpoint import CHECKPOINT
from ganparts.training.device import DeviceError, explain_out_of_memory, make_deterministic
from ganparts.training.options import RunOptions, parse_options
from ganparts.training.policy import CompileError

__all__ = ["explain_error", "import_parts", "run_recipe"]

OptionsT = TypeVar("OptionsT", bound=RunOptions)
console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

_PACKAGE = Path(__file__).parent.parent
_ALWAYS_MEANT = (UnknownPartError, CaptureError, CompileError, DeviceError, PeerLostError, ImportError, OSError)


def run_recipe(
    train: Callable[[OptionsT], None], kind: type[OptionsT], *, description: str, arguments: list[str] | None = None
) -> int:
    """Parse a command line and train; the exit code.

    Of the processes that torchrun starts, the first one alone speaks, until one has to say why the run ends.

    Args:
        train: the recipe.
        kind: its options, a frozen dataclass.
        description: of the program, for ``--help``.
        arguments: of the command line; None for the program's.
    """
    shown: set[str] = set()

    def show(message: object, *_: object, **__: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            console.print(f"warning: {message}")

    warnings.showwarning = show
    options = None
    try:
        join()
        console.quiet = not is_first()
        options = from_first(lambda: parse_options(kind, description=description, arguments=arguments))
        import_parts(options.imports)
        watch(partial(_lost, folder=options.resume or options.out))
        make_deterministic(options.deterministic)
        train(options)
        wait_for_all()
        leave()
    except SystemExit:  # of all: --help, or options that are not understood
        leave()
        raise
    except KeyboardInterrupt:
        console.print("Interrupted; what the last checkpoint holds is kept.")
        return _end(130)
    except Exception as error:
        _take_time_to_speak()
        if options is not None and options.debug:
            raise
        if not (isinstance(error, PeerLostError) and error.told) and first_to_speak():
            leave_word(_say_why(error, None if options is None else options.resume or options.out))
        elif reason := word_from_elsewhere():
            console.quiet = False
            console.print(f"error on another machine{reason}")
            _tell_torchrun(f"on another machine{reason}")
        return _end(1)
    return 0


def _lost(error: PeerLostError, *, folder: Path | None) -> None:
    """End this process at once: the main thread may be waiting for a message that will not come."""
    if is_first():
        first_to_speak()  # so that the processes that end with this one do not
    if local_rank() == 0:
        reason = _say_why(error, folder)
        if is_first():  # which has the store at hand
            leave_word(reason)
    _end(1)


def _take_time_to_speak() -> None:
    """Torchrun ends the other processes on a machine as soon as one has ended; it gives them half a minute."""
    if processes() > 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _say_why(error: Exception, folder: Path | None) -> str:
    """Say why the run ends, here and in torchrun's report; what was said, without its first word."""
    console.quiet = False
    where = f" (process {rank()})" if processes() > 1 else ""
    kept = ""
    ended = isinstance(error, PeerLostError) or (isinstance(error, OSError) and error.errno == ENOSPC)
    if ended and folder is not None and (folder / CHECKPOINT).exists():
        kept = f": the last checkpoint in {folder} is whole, and --resume {folder} goes on"
    reason = f"{explain_error(error)}{kept}"
    console.print(f"error{where}: {reason}")
    if not _is_expected(error):
        _write_trace(error, folder)
    _tell_torchrun(reason)
    return f"{where}: {reason}"


def _tell_torchrun(reason: str) -> None:
    """The reason for the report that torchrun prints after the end."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": reason, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": {"message": reason, "extraInfo": extra}}))


def _end(code: int) -> int:
    if processes() > 1:  # at once: messages that nobody answers any more would hold up an orderly end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def import_parts(modules: Iterable[str]) -> None:
    """Import modules that register parts.

    Raises:
        ImportError: there is no such module (says where Python looks), or what it imports is missing.
    """
    for module in modules:
        try:
            importlib.import_module(module.lstrip("./"))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module.lstrip('./')}.".startswith(f"{error.name}."):
                raise  # the module is there, and imports another that is not
            name = module.lstrip("./").removesuffix(".py").replace("/", ".")
            spelled = f" Give the module's name, not its file: --imports {name}." if name != module else ""
            raise ImportError(
                f"--imports {module}: Python finds no module of this name.{spelled} Put the folder that holds it on "
                "PYTHONPATH (PYTHONPATH=FOLDER; for the current folder PYTHONPATH=.), or install it"
            ) from None


def explain_error(error: BaseException) -> str:
    """An error in one or two sentences; an unexpected one also says where it arose."""
    if isinstance(error, RuntimeError) and (advice := explain_out_of_memory(error)) is not None:
        return advice
    if _is_expected(error):
        return str(error)
    frames = _frames(error.__traceback__)
    # the innermost line that is neither ours nor Python's nor a package's: most likely the user's own
    own = [frame for frame in frames if not (_is_installed(frame.filename) or _is_ours(frame.filename))]
    frame = (own or frames)[-1]
    where = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    return f"{type(error).__name__}: {error} ({where})"


def _is_expected(error: BaseException) -> bool:
    """Whether its text is meant for a user: raised by the library, or by the system about a file or a module."""
    if isinstance(error, _ALWAYS_MEANT):
        return True
    raised_by_us = _is_ours(_frames(error.__traceback__)[-1].filename) if error.__traceback__ else False
    if isinstance(error, RuntimeError):
        return raised_by_us or explain_out_of_memory(error) is not None
    return isinstance(error, ValueError | TypeError) and raised_by_us


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(_PACKAGE) or path == Path(sys.argv[0]).absolute()


def _is_installed(filename: str) -> bool:
    return any(Path(filename).is_relative_to(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


def _frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(trace)) or [traceback.FrameSummary("?", 0, "?")]


def _write_trace(error: BaseException, folder: Path | None) -> None:
    text = "".join(traceback.format_exception(error))
    if folder is not None and folder.is_dir():
        path = folder / "error.txt"
        path.write_text(text)
        console.print(f"The whole trace is in {path}.")
    else:
        console.print("--debug shows the whole trace.")
