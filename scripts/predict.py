"""Classify photos with an endpoint: labels in the terminal, and a picture of all photos with their labels.

For a photo in a folder named after a class, such as test/dress/1.jpg, the title is green if the label is right and red
if it is wrong, and the accuracy is printed.

Examples:
  .venv/bin/python scripts/predict.py image-classifier prepared/test/dress/*.jpg
  .venv/bin/python scripts/predict.py --local image-classifier prepared/test --num 24
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aws.request_check import check
from launch.cli import add_common, create_parser, platform_options, run_command
from launch.endpoint.predictions import Prediction, classify, draw_grid, find_photos, invocation_request
from launch.terminal import as_json


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
    request = invocation_request(options.endpoint, options.target_model)
    check({"InvokeEndpoint": {**request, "Body": b""}})
    if options.dry_run:
        print(as_json([{**request, "Body": str(photo)} for photo in photos]))
        return 0
    predictions, num_failed = classify(platform_options(options).connect(), request, photos)
    if predictions:
        draw_grid(predictions, options.grid)
        _summarize(predictions, options.grid)
    return int(num_failed > 0)


def _summarize(predictions: Sequence[Prediction], grid: Path) -> None:
    labelled = [one for one in predictions if one.is_correct is not None]
    if labelled:
        num_correct = sum(1 for one in labelled if one.is_correct)
        share = num_correct / len(labelled)
        print(f"correct     {num_correct} of {len(labelled)}, by folder name ({share:.1%})")
    print(f"grid        {grid}")


if __name__ == "__main__":
    sys.exit(main())
