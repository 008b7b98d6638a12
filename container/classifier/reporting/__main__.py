"""The command ``python -m classifier.reporting FOLDER``, which rebuilds report.html from a training's output files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.errors import UserError
from classifier.reporting.page import write_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuild the page, print its path and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m classifier.reporting", description="Rebuild report.html from the output files of a training."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a job's output/data, or a folder that contains it")
    options = parser.parse_args(arguments)
    try:
        print(write_page(options.folder))
    except UserError as error:
        print(f"reporting: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"reporting: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
