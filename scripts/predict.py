"""Classify photos with an endpoint: labels in the terminal, and a picture of all photos with their labels.

For a photo in a folder named after a class, such as test/dress/1.jpg, the title is green if the label is right and red
if it is wrong, and the accuracy is printed.

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

from aws.errors import translate_errors
from classifier.contract.channels import is_junk_file
from classifier.errors import DataError, UserError
from classifier.vision.images import EXTENSIONS
from launch.cli import add_common, create_parser, platform_options, run_command
from launch.endpoint.grid import Prediction, draw_grid
from launch.platform.clients import Platform
from launch.terminal import as_json, print_status

_NUM_SHOWN = 3
# The verbose answer lists the names of all classes, by which a folder is recognized as one.
_ACCEPT = "application/json;verbose"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("predict", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("predict.py", __doc__)
    parser.add_argument("endpoint", metavar="ENDPOINT", help="the endpoint's name")
    parser.add_argument("photo", nargs="+", type=Path, metavar="PHOTO", help="a photo, or a folder of photos")
    parser.add_argument("--target-model", metavar="NAME", help="NAME.tar.gz of a multi-model endpoint")
    parser.add_argument("--num", type=int, metavar="N", help="classify only N photos, spread evenly")
    parser.add_argument(
        "--grid",
        type=Path,
        default=Path("predictions.png"),
        metavar="FILE",
        help="where the picture goes (default: %(default)s)",
    )
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
    predictions, num_failed = _classify_all(platform_options(options).connect(), request, photos)
    if predictions:
        draw_grid(predictions, options.grid)
        _summarize(predictions, options.grid)
    return int(num_failed > 0)


def find_photos(paths: Iterable[Path], num: int | None) -> list[Path]:
    """List photos and those in folders, of every type that training reads.

    Args:
        num: the number of photos to select, spread evenly; all if None or 0.

    Raises:
        DataError: a path does not exist, or there are no photos.
    """
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            photos += sorted(file for file in path.rglob("*") if _is_photo(file, path))
        elif path.is_file():
            photos.append(path)
        else:
            raise DataError(f"{path} does not exist")
    if not photos:
        raise DataError(f"no photos in {', '.join(map(str, paths))}")
    return photos if not num or num >= len(photos) else [photos[i * len(photos) // num] for i in range(num)]


def _is_photo(file: Path, folder: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS and not any(map(is_junk_file, file.relative_to(folder).parts))


def _classify_all(
    platform: Platform, request: Mapping[str, Any], photos: Sequence[Path]
) -> tuple[list[Prediction], int]:
    """Classify and print one photo after the other; an error is printed, counted, and the others go on."""
    width = max(len(_short(path)) for path in photos)
    predictions, num_failed = [], 0
    for path in photos:
        try:
            document = _invoke(platform, request, path)
        except UserError as error:
            num_failed += 1
            print_status(f"{_short(path):<{width}}  {error}")
            continue
        print(f"{_short(path):<{width}}  {_describe(document['predictions'])}", flush=True)
        predictions.append(_prediction(path, document))
    return predictions, num_failed


def _invoke(platform: Platform, request: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the endpoint's answer for one photo.

    Raises:
        UserError: the endpoint rejected the photo.
        CloudError: there is no such endpoint, or AWS can't be reached.
    """
    with translate_errors(f"endpoint {request['EndpointName']}"):
        try:
            answer = platform.runtime.invoke_endpoint(**request, Body=path.read_bytes())
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ModelError":
                raise
            raise UserError(_describe_rejection(error.response)) from None
        return json.loads(answer["Body"].read())


def _describe_rejection(response: Mapping[str, Any]) -> str:
    message = response.get("OriginalMessage", "")
    try:
        message = json.loads(message)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = message or response.get("Error", {}).get("Message", "")
    return f"rejected ({response.get('OriginalStatusCode', '?')}): {message}"


def _prediction(path: Path, document: Mapping[str, Any]) -> Prediction:
    likeliest = document["predictions"][0]
    folder = path.resolve().parent.name
    classes = zip(document["labels"], document["class_names"], strict=True)
    truth = next((name for label, name in classes if _names_class(folder, label, name)), None)
    return Prediction(path, likeliest["class_name"], likeliest["probability"], truth)


def _names_class(folder: str, label: str, name: str) -> bool:
    """Whether a folder is named after a class: ``dress``, or ``069.French_bulldog`` for label 069 and that name."""
    if folder in (label, name):
        return True
    return folder.startswith(label) and folder.endswith(name) and len(folder) == len(label) + len(name) + 1


def _describe(predictions: Sequence[Mapping[str, Any]]) -> str:
    return "  ·  ".join(f"{one['class_name']} {one['probability']:.1%}" for one in predictions[:_NUM_SHOWN])


def _short(path: Path) -> str:
    return f"{path.resolve().parent.name}/{path.name}"


def _summarize(predictions: Sequence[Prediction], grid: Path) -> None:
    labelled = [one for one in predictions if one.is_correct is not None]
    if labelled:
        num_correct = sum(1 for one in labelled if one.is_correct)
        share = num_correct / len(labelled)
        print(f"correct     {num_correct} of {len(labelled)}, by folder name ({share:.1%})")
    print(f"grid        {grid}")


if __name__ == "__main__":
    sys.exit(main())
