"""Classification of photos with an endpoint: labels in the terminal, and a picture of the photos with their labels."""

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from PIL import Image, ImageDraw, ImageFont, ImageOps

from aws.errors import CloudError, is_passing, translate_errors
from classifier.contract.channels import has_image_extension, is_junk_file
from classifier.errors import DataError, UserError
from commands import interrupts
from launch.platform.clients import Platform
from launch.platform.resources import describe
from launch.terminal import command, print_status

_NUM_SHOWN = 3  # classes of a photo, in the terminal
# The verbose answer lists the names of all classes, by which a folder is recognized as one.
_ACCEPT = "application/json;verbose"
# Statuses in which an endpoint answers.
_SERVING = ("InService", "Updating", "SystemUpdating", "RollingBack")
# The server's error as JSON, by itself or inside another text.
_ERROR = re.compile(r'\{"error".*\}', re.DOTALL)
_MAX_SHOWN = 200  # bytes of an answer, in a message

# The picture; sizes in pixels.
_TILE, _TITLE, _GAP = 200, 40, 8
_MAX_COLUMNS = 6
_GREEN, _RED, _BLACK, _WHITE = (0, 120, 40), (190, 20, 20), (20, 20, 20), (255, 255, 255)


class RejectedError(UserError):
    """The endpoint has no answer about one photo; it may answer about others."""


@dataclass(frozen=True)
class Prediction:
    """A photo, its likeliest class, and its true class if its folder is named after one."""

    path: Path
    label: str
    probability: float
    truth: str | None = None

    @property
    def is_correct(self) -> bool | None:
        """Whether the label is the true class, or None if that is unknown."""
        return None if self.truth is None else self.label == self.truth


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
    return has_image_extension(file) and not any(map(is_junk_file, file.relative_to(folder).parts))


def invocation_request(endpoint: str, target_model: str | None = None) -> dict[str, Any]:
    """Return an InvokeEndpoint request without its body; ``target_model`` is for a multi-model endpoint."""
    request = {"EndpointName": endpoint, "ContentType": "application/x-image", "Accept": _ACCEPT}
    return {**request, "TargetModel": target_model} if target_model else request


def find_endpoint(platform: Platform, name: str) -> Mapping[str, Any]:
    """Return an endpoint's description; nothing if the caller may invoke endpoints, but not describe them.

    Raises:
        CloudError: there is no such endpoint, it is not in service, or AWS can't be reached.
    """
    with translate_errors(f"endpoint {name}"):
        try:
            found = describe(platform.sagemaker, "endpoint", name)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "AccessDeniedException":
                raise
            return {}
    if found is None:
        raise CloudError(f"there is no endpoint {name}; {command('teardown', '--dry-run')}{platform.flags} lists yours")
    if found["EndpointStatus"] not in _SERVING:
        reason = f": {found['FailureReason']}" if "FailureReason" in found else ""
        raise CloudError(f"endpoint {name} is {found['EndpointStatus']}{reason}; it can't be invoked now")
    return found


def classify(ask: Callable[[Path], Mapping[str, Any]], photos: Sequence[Path]) -> tuple[list[Prediction], int]:
    """Classify and print one photo after the other; a rejected photo is printed, counted, and the others go on.

    Args:
        ask: returns the endpoint's answer about a photo, or raises RejectedError.

    Returns:
        The predictions, and the number of photos that failed.
    """
    width = max(len(_short(path)) for path in photos)
    predictions, num_failed = [], 0
    for path in photos:
        interrupts.check()
        try:
            document = ask(path)
        except RejectedError as error:
            num_failed += 1
            print_status(f"{_short(path):<{width}}  {error}")
            continue
        print(f"{_short(path):<{width}}  {_describe(document['predictions'])}", flush=True)
        predictions.append(_prediction(path, document))
    return predictions, num_failed


def invoke(platform: Platform, request: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a real-time endpoint's answer for one photo.

    Args:
        request: the request without its body, as returned by :func:`invocation_request`.

    Raises:
        RejectedError: the endpoint rejected the photo, or was too busy for it.
        CloudError: there is no such endpoint, or AWS can't be reached.
    """
    with translate_errors(f"endpoint {request['EndpointName']}"):
        try:
            answer = platform.runtime.invoke_endpoint(**request, Body=path.read_bytes())
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ModelError":
                raise RejectedError(_describe_rejection(error.response)) from None
            if is_passing(error):
                raise RejectedError(str(error)) from None
            raise
        return read_document(answer["Body"].read())


def read_document(content: bytes) -> dict[str, Any]:
    """Parse an endpoint's answer.

    Raises:
        UserError: it is not one of this project's servers.
    """
    try:
        document = json.loads(content)
        if document["predictions"] and document["labels"] and document["class_names"]:
            return document
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"the endpoint's answer is not that of an image classifier: {content[:_MAX_SHOWN]!r}")


def error_message(text: str) -> str:
    """Return the server's message from the text of a failure, which may enclose the server's JSON, or the text."""
    found = _ERROR.search(text)
    try:
        return json.loads(found[0])["error"]["message"] if found else text
    except (ValueError, KeyError, TypeError):
        return text


def _describe_rejection(response: Mapping[str, Any]) -> str:
    message = response.get("OriginalMessage", "") or response.get("Error", {}).get("Message", "")
    return f"rejected ({response.get('OriginalStatusCode', '?')}): {error_message(message)}"


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


def draw_grid(predictions: Sequence[Prediction], path: Path) -> None:
    """Write a PNG with all photos, in their order; an unreadable photo is drawn as a grey tile."""
    columns = min(_MAX_COLUMNS, math.ceil(math.sqrt(len(predictions))))
    rows = math.ceil(len(predictions) / columns)
    width, height = _TILE + _GAP, _TILE + _TITLE + _GAP
    grid = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _WHITE)
    for index, prediction in enumerate(predictions):
        left, top = _GAP + index % columns * width, _GAP + index // columns * height
        _draw_title(ImageDraw.Draw(grid), prediction, left, top)
        tile = _tile(prediction.path)
        grid.paste(tile, (left + (_TILE - tile.width) // 2, top + _TITLE))
    # Renamed when complete: an interrupted run leaves no truncated picture.
    unfinished = path.with_name(f"{path.name}.part")
    grid.save(unfinished, "PNG")
    unfinished.replace(path)


def _draw_title(draw: ImageDraw.ImageDraw, prediction: Prediction, left: int, top: int) -> None:
    colour = {True: _GREEN, False: _RED, None: _BLACK}[prediction.is_correct]
    lines = [f"{prediction.label} {prediction.probability:.0%}"]
    if prediction.is_correct is False:
        lines.append(f"is {prediction.truth}")
    font = ImageFont.load_default(15)
    for number, line in enumerate(lines):
        draw.text((left, top + number * 19), _fit(line, font), fill=colour, font=font)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten a text that is wider than a tile by eliding its middle."""
    while font.getlength(text) > _TILE and len(text) > 4:
        middle = len(text) // 2
        text = f"{text[: middle - 1].rstrip('…')}…{text[middle + 1 :].lstrip('…')}"
    return text


def _tile(path: Path) -> Image.Image:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as photo:
            upright = ImageOps.exif_transpose(photo).convert("RGB")
    except (OSError, ValueError):
        return Image.new("RGB", (_TILE, _TILE), (230, 230, 230))
    upright.thumbnail((_TILE, _TILE))
    if max(upright.size) < _TILE:
        upright = ImageOps.contain(upright, (_TILE, _TILE), Image.Resampling.NEAREST)
    return upright
