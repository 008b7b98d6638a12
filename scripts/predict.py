"""Classify photos with an endpoint: labels in the terminal, and a picture of all photos with their labels.

For a photo in a folder named after a class, such as test/dress/1.jpg, the title is green if the label is right and red
if it is wrong, and the accuracy is printed.

For an asynchronous endpoint, the photos are uploaded, queued together and deleted once they are answered. An endpoint
without instances starts one for them, which takes minutes.

Examples:
  .venv/bin/python scripts/predict.py image-classifier prepared/test/dress/*.jpg
  .venv/bin/python scripts/predict.py --local image-classifier prepared/test --num 24
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aws.request_check import check
from classifier.errors import ConfigError
from launch.cli import add_common, create_parser, platform_options, run_command
from launch.endpoint.asynchronous import AsyncInvocations, async_request, input_location, upload_prefix
from launch.endpoint.predictions import (
    Prediction,
    classify,
    draw_grid,
    find_endpoint,
    find_photos,
    invocation_request,
    invoke,
)
from launch.platform.clients import PlatformOptions
from launch.platform.objects import Objects
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
    parser.add_argument(
        "--upload",
        metavar="S3_URI",
        help="of an asynchronous endpoint: where the photos are uploaded (default: inputs/ below its answers)",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="of an asynchronous endpoint: how long to wait for its answers (default: %(default)s)",
    )
    add_common(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    photos = find_photos(options.photo, options.num)
    request = invocation_request(options.endpoint, options.target_model)
    check({"InvokeEndpoint": {**request, "Body": b""}})
    # As NaN is not, either.
    if not options.wait >= 0:
        raise ConfigError(f"--wait {options.wait:g}: at least 0 seconds")
    platform = platform_options(options)
    endpoint = platform.look_up(
        lambda: find_endpoint(platform.connect(), options.endpoint), {}, "a real-time endpoint is assumed"
    )
    config = endpoint.get("AsyncInferenceConfig")
    if config is None and options.upload:
        raise ConfigError(f"--upload: endpoint {options.endpoint} is not asynchronous, and reads no photos from S3")
    uploads = upload_prefix(config, options.upload) if config else None
    if options.dry_run:
        print(as_json(_requests(request, photos, uploads)))
        return 0
    predictions, num_failed = _classify(platform, request, photos, uploads, options.wait)
    if predictions:
        draw_grid(predictions, options.grid)
        _summarize(predictions, options.grid)
    return int(num_failed > 0)


def _requests(request: Mapping[str, Any], photos: Sequence[Path], uploads: str | None) -> list[dict[str, Any]]:
    """Return the requests about the photos; those to an asynchronous endpoint name files that do not exist yet."""
    if uploads is None:
        return [{**request, "Body": str(photo)} for photo in photos]
    return [{**async_request(request), "InputLocation": input_location(photo, uploads)} for photo in photos]


def _classify(
    platform: PlatformOptions, request: Mapping[str, Any], photos: Sequence[Path], uploads: str | None, wait_s: float
) -> tuple[list[Prediction], int]:
    clients = platform.connect()
    if uploads is None:
        return classify(lambda photo: invoke(clients, request, photo), photos)
    with AsyncInvocations(clients, Objects(platform.region), async_request(request), uploads, wait_s) as invocations:
        invocations.send(photos)
        return classify(invocations.answer, photos)


def _summarize(predictions: Sequence[Prediction], grid: Path) -> None:
    labelled = [one for one in predictions if one.is_correct is not None]
    if labelled:
        num_correct = sum(1 for one in labelled if one.is_correct)
        share = num_correct / len(labelled)
        print(f"correct     {num_correct} of {len(labelled)}, by folder name ({share:.1%})")
    print(f"grid        {grid}")


if __name__ == "__main__":
    sys.exit(main())
