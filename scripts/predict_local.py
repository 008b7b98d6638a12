"""Ask the server on this machine about photos, and print what it sees in each.

Example:
  local_test/predict.sh photos/*.jpg
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from classifier.errors import UserError

TIMEOUT_S = 60
NUM_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every photo was answered, else 1."""
    options = _parse(arguments)
    try:
        return _ask_all(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read along (head, less) has seen enough. At its end Python would try to write once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _ask_all(options: argparse.Namespace) -> int:
    width = max(len(path.name) for path in options.photo)
    failed = False
    for path in options.photo:
        try:
            print(f"{path.name:<{width}}  {_describe(_ask(path, options.port))}", flush=True)
        except UserError as error:
            failed = True
            print(f"{path.name:<{width}}  {error}", file=sys.stderr, flush=True)
    return int(failed)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")), help="default: %(default)s")
    return parser.parse_args(arguments)


def _ask(path: Path, port: int) -> list[dict[str, object]]:
    """The labels of one photo, the likeliest first.

    Raises:
        UserError: there is no such file, no server, or the server refuses the photo.
    """
    url = f"http://127.0.0.1:{port}/invocations"
    try:
        body = path.read_bytes()
        request = urllib.request.Request(url, body, {"Content-Type": "application/x-image"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise UserError(f"refused ({error.code}): {json.load(error)['error']['message']}") from None
    except urllib.error.URLError as error:
        raise UserError(
            f"no server answers on port {port} ({error.reason}): start one with local_test/serve_local.sh"
        ) from None
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}") from None


def _describe(predictions: Sequence[dict[str, object]]) -> str:
    return "  ·  ".join(f"{one['class_name']} {one['probability']:.1%}" for one in predictions[:NUM_SHOWN])


if __name__ == "__main__":
    sys.exit(main())
