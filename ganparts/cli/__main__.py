"""``python -m ganparts.cli``."""

from ganparts.cli import main

if __name__ == "__main__":
    main()
