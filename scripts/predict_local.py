"""Classify photos with the server on this machine and print the most probable classes of each.

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
from commands import interrupts
from commands.running import run_command

TIMEOUT_S = 60
NUM_SHOWN = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Classify all photos. Returns 0 if each was classified, else 1."""
    options = _parse(arguments)
    return run_command("predict.sh", lambda: _predict_all(options))


def _predict_all(options: argparse.Namespace) -> int:
    width = max(len(path.name) for path in options.photo)
    failed = False
    for path in options.photo:
        interrupts.check()
        try:
            print(f"{path.name:<{width}}  {_describe(_predict(path, options.port))}", flush=True)
        except UserError as error:
            failed = True
            print(f"{path.name:<{width}}  {error}", file=sys.stderr, flush=True)
    return int(failed)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", nargs="+", type=Path, metavar="PHOTO", help="image files")
    parser.add_argument(
        "--port",
        type=int,
        default=int(os.environ.get("PORT", "8080")),
        help="port of serve_local.sh (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def _predict(path: Path, port: int) -> list[dict[str, object]]:
    """Classify one photo; the classes, the most probable first.

    Raises:
        UserError: the file can't be read, no server answers, or the server rejects the photo.
    """
    url = f"http://127.0.0.1:{port}/invocations"
    try:
        body = path.read_bytes()
        request = urllib.request.Request(url, body, {"Content-Type": "application/x-image"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise UserError(f"rejected ({error.code}): {json.load(error)['error']['message']}") from None
    except urllib.error.URLError as error:
        raise UserError(
            f"no server answers on port {port} ({error.reason}); start one with local_test/serve_local.sh"
        ) from None
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}") from None


def _describe(predictions: Sequence[dict[str, object]]) -> str:
    return "  ·  ".join(f"{one['class_name']} {one['probability']:.1%}" for one in predictions[:NUM_SHOWN])


if __name__ == "__main__":
    sys.exit(main())
