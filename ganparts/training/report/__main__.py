"""``python -m ganparts.training.report FOLDER``: the page of a run that did not live to write its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ganparts.training.report.page import write_report

__all__ = ["main"]

LEFT_BY_A_RUN = ("config.json", "losses.csv", "samples")


def main(arguments: list[str] | None = None) -> int:
    """Write the page of the folder that the command line names; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ganparts.training.report", description="Write a run's report.html."
    )
    parser.add_argument("folder", type=Path, help="the run's folder")
    folder = parser.parse_args(arguments).folder
    try:
        if folder.is_dir() and not any((folder / name).exists() for name in LEFT_BY_A_RUN):
            raise FileNotFoundError(f"{folder} holds no run: it has none of {', '.join(LEFT_BY_A_RUN)}")
        print(write_report(folder))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
