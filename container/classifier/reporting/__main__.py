"""``python -m classifier.reporting FOLDER``: the page anew, from the files that a training left."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.errors import UserError
from classifier.reporting.page import write_page


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m classifier.reporting", description="Make report.html anew.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a job's output/data, or the folder that holds it")
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
