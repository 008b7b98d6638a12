"""Photos → a server's predictions, in readable lines. Needs Python's own library alone."""

import argparse
import http.client
import json
import os
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 60


def main(arguments: list[str] | None = None) -> int:
    """0: every photo was predicted; 1: one was not, and its line says why."""
    parser = argparse.ArgumentParser(prog="local_test/predict.sh", description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    parser.add_argument("--top-k", type=int, default=3, help="how many classes a photo (default: 3)")
    options = parser.parse_args(arguments)
    width = max(len(str(photo)) for photo in options.photos)
    were_predicted = [_print(photo, options.port, options.top_k, width) for photo in options.photos]
    return 0 if all(were_predicted) else 1


def _print(photo: Path, port: int, top_k: int, width: int) -> bool:
    try:
        places = _ask(photo.read_bytes(), port, top_k)["predictions"]
    except ConnectionRefusedError:
        sys.exit(f"predict: nobody answers on port {port}; local_test/serve_local.sh starts the server")
    except (OSError, RuntimeError, ValueError) as error:
        print(f"{photo!s:<{width}}  error: {error}")
        return False
    best = "   ".join(f"{place['class_name']} {place['probability']:.1%}" for place in places)
    print(f"{photo!s:<{width}}  {best}")
    return True


def _ask(data: bytes, port: int, top_k: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = {"Content-Type": "application/x-image", "X-Amzn-SageMaker-Custom-Attributes": f"top_k={top_k}"}
    try:
        connection.request("POST", "/invocations", data, headers)
        response = connection.getresponse()
        document = json.loads(response.read())
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise RuntimeError(document["error"]["message"])
    return document


if __name__ == "__main__":
    sys.exit(main())
