"""What all commands share: the application that they register with, and where they print."""

from __future__ import annotations

from rich.console import Console
from tyro.extras import SubcommandApp

__all__ = ["app", "console"]

app = SubcommandApp()
console = Console(highlight=False, markup=False, soft_wrap=True)
