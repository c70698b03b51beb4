"""``python -m ganparts.cli``."""

from ganparts.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
