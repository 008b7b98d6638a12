"""Ask an endpoint about photos: labels in the terminal, and a picture of all of them.

Where a photo's folder has the name of a class (as test/dress/1.jpg has), titles are green when the label is right and
red when it is wrong, and the accuracy is told.

Examples:
  .venv/bin/python scripts/predict.py image-classifier prepared/test/dress/*.jpg
  .venv/bin/python scripts/predict.py --local image-classifier prepared/test --num 24
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws.errors import explained
from classifier.errors import DataError, UserError
from launch.cli import add_common, as_json, run_command, say
from launch.endpoint.grid import Seen, draw_grid
from launch.platform.clients import Platform, aws_platform, local_platform

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_NUM_SHOWN = 3
# With the names of all classes, by which a folder's name is known to be one.
_ACCEPT = "application/json;verbose"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return run_command("predict", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("endpoint", metavar="ENDPOINT")
    parser.add_argument("photo", nargs="+", type=Path, metavar="PHOTO", help="a photo, or a folder of them")
    parser.add_argument("--target-model", metavar="NAME", help="which one, of a multi-model endpoint: NAME.tar.gz")
    parser.add_argument("--num", type=int, metavar="N", help="N photos of them, spread evenly")
    parser.add_argument("--grid", type=Path, default=Path("predictions.png"), metavar="FILE", help="%(default)s")
    add_common(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    photos = find_photos(options.photo, options.num)
    request = {"EndpointName": options.endpoint, "ContentType": "application/x-image", "Accept": _ACCEPT}
    if options.target_model:
        request["TargetModel"] = options.target_model
    if options.dry_run:
        print(as_json([{**request, "Body": str(photo)} for photo in photos]))
        return 0
    platform = local_platform(options.folder) if options.local else aws_platform(options.region)
    seen, num_refused = _ask_all(platform, request, photos)
    if seen:
        draw_grid(seen, options.grid)
        _summarise(seen, options.grid)
    return int(num_refused > 0)


def find_photos(paths: Iterable[Path], num: int | None) -> list[Path]:
    """
    Raises:
        DataError: a path does not exist, or there are no photos.
    """
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            photos += sorted(one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            photos.append(path)
        else:
            raise DataError(f"{path}: there is no such photo")
    if not photos:
        raise DataError(f"{', '.join(map(str, paths))}: there are no photos")
    return photos if not num or num >= len(photos) else [photos[i * len(photos) // num] for i in range(num)]


def _ask_all(platform: Platform, request: Mapping[str, Any], photos: Sequence[Path]) -> tuple[list[Seen], int]:
    width = max(len(_short(path)) for path in photos)
    seen, num_refused = [], 0
    for path in photos:
        try:
            document = _ask(platform, request, path)
        except UserError as error:
            num_refused += 1
            say(f"{_short(path):<{width}}  {error}")
            continue
        print(f"{_short(path):<{width}}  {_describe(document['predictions'])}", flush=True)
        seen.append(_seen(path, document))
    return seen, num_refused


def _ask(platform: Platform, request: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """All that the endpoint says of one photo.

    Raises:
        UserError: the endpoint refuses the photo.
        CloudError: there is no such endpoint, or AWS does not answer.
    """
    with explained(f"endpoint {request['EndpointName']}"):
        try:
            answer = platform.runtime.invoke_endpoint(**request, Body=path.read_bytes())
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ModelError":
                raise
            raise UserError(_refusal(error.response)) from None
        return json.loads(answer["Body"].read())


def _refusal(response: Mapping[str, Any]) -> str:
    message = response.get("OriginalMessage", "")
    try:
        message = json.loads(message)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = message or response.get("Error", {}).get("Message", "")
    return f"refused ({response.get('OriginalStatusCode', '?')}): {message}"


def _seen(path: Path, document: Mapping[str, Any]) -> Seen:
    likeliest = document["predictions"][0]
    folder = path.resolve().parent.name
    classes = zip(document["labels"], document["class_names"], strict=True)
    truth = next((name for label, name in classes if _names_class(folder, label, name)), None)
    return Seen(path, likeliest["class_name"], likeliest["probability"], truth)


def _names_class(folder: str, label: str, name: str) -> bool:
    """``dress``; ``069.French_bulldog`` for label 069 and that name."""
    if folder in (label, name):
        return True
    return folder.startswith(label) and folder.endswith(name) and len(folder) == len(label) + len(name) + 1


def _describe(predictions: Sequence[Mapping[str, Any]]) -> str:
    return "  ·  ".join(f"{one['class_name']} {one['probability']:.1%}" for one in predictions[:_NUM_SHOWN])


def _short(path: Path) -> str:
    return f"{path.resolve().parent.name}/{path.name}"


def _summarise(seen: Sequence[Seen], grid: Path) -> None:
    told = [one for one in seen if one.is_right is not None]
    if told:
        right = sum(1 for one in told if one.is_right)
        print(f"right       {right} of {len(told)}, by the names of their folders ({right / len(told):.1%})")
    print(f"grid        {grid}")


if __name__ == "__main__":
    sys.exit(main())
