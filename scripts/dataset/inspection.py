"""One photo: read once; what it is, what is wrong with it, and its bytes put aside for its class folder."""

import io
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from classifier.errors import DataError, ImageError
from classifier.vision.images import FORMATS, decode, tolerate_truncated_images
from dataset.listing import Listing
from dataset.progress import progress

MAX_BYTES = 512_000_000  # larger than any photo that decode() takes
_QUALITY = 92
# The first is given to a file that has none of them.
_EXTENSIONS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "AVIF": (".avif",),
}
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}


class Wishes(NamedTuple):
    """What is wanted of every photo. ``longer_side`` in pixels, or None to leave the sizes alone."""

    min_side: int
    longer_side: int | None
    repair_truncated: bool
    keep_tiny: bool
    link: bool


class Task(NamedTuple):
    """A file to look at, and where to put its bytes."""

    path: str
    aside: str


class Facts(NamedTuple):
    """What a photo turned out to be. ``digest`` is of the bytes that were read; None when nothing was put aside.

    ``extension`` is the right one for what was put aside, or empty when the name's own is right.
    """

    digest: bytes | None
    size: int = 0
    width: int = 0
    height: int = 0
    extension: str = ""
    kind: str = ""
    reason: str = ""
    fixed: bool = False


def inspect_all(tasks: Sequence[Task], wishes: Wishes) -> list[Facts]:
    return [inspect(task, wishes) for task in tasks]


def inspect(task: Task, wishes: Wishes) -> Facts:
    """Read, check, resize if wanted, and put aside what is good."""
    try:
        data = _read(task.path)
    except OSError as error:
        return Facts(None, kind="missing", reason=error.strerror or str(error))
    if data is None:
        return Facts(None, kind="not-image", reason=f"larger than {MAX_BYTES:,} bytes, as no photo is")
    facts, written = _judge(data, os.path.splitext(task.path)[1].lower(), wishes)  # noqa: PTH122 (ten times faster)
    if facts.digest is not None:
        _put_aside(task, data if written is None else written, link=wishes.link and written is None)
    return facts


def _read(path: str) -> bytes | None:
    with open(path, "rb") as file:  # noqa: PTH123 (ten times faster)
        data = file.read(MAX_BYTES + 1)
    return data if len(data) <= MAX_BYTES else None


def _judge(data: bytes, extension: str, wishes: Wishes) -> tuple[Facts, bytes | None]:
    """The facts, and other bytes to put aside than those that were read, if any."""
    size = len(data)
    try:
        name, width, height = _header(data)
    except ImageError as error:
        return Facts(None, size, kind=_headless_kind(data, str(error)), reason=_reason(error)), None
    kind = reason = ""
    image = None
    try:
        image = _decode(data, width, height, wishes.longer_side)
    except ImageError as error:
        reason = _reason(error)
        kind = "truncated" if _lacks_end(data, name, reason) else "corrupt"
        if kind == "truncated" and wishes.repair_truncated:
            image = _decode_rest(data)
    if image is None:
        return Facts(None, size, width, height, kind=kind, reason=reason), None
    digest = blake2b(data, digest_size=16).digest()
    if min(width, height) < wishes.min_side:
        tiny = f"{width} × {height} pixels"
        kept = digest if wishes.keep_tiny else None
        return Facts(kept, size, width, height, _right_extension(name, extension), "tiny", tiny), None
    if kind or (wishes.longer_side and max(width, height) > wishes.longer_side):
        written = _encode(image, wishes.longer_side)
        new = "" if extension in _EXTENSIONS["JPEG"] else ".jpg"
        wrong = _right_extension(name, extension)
        kind, reason = (kind, reason) if kind else ("extension", _misnamed(name, extension)) if wrong else ("", "")
        return Facts(digest, len(written), width, height, new, kind, reason, fixed=True), written
    right = _right_extension(name, extension)
    if right:
        return Facts(digest, size, width, height, right, "extension", _misnamed(name, extension)), None
    return Facts(digest, size, width, height), None


def _header(data: bytes) -> tuple[str, int, int]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.format or "", image.width, image.height
    except Exception:
        # decode() says it in the words that the training uses.
        decode(data)
        raise ImageError("not an image") from None


def _decode(data: bytes, width: int, height: int, longer_side: int | None) -> Image.Image:
    """At the smallest scale that JPEG has, which finds what a full decoding finds, or the smallest that is needed."""
    if longer_side is None or longer_side >= max(width, height):
        return decode(data, cover=1)
    return decode(data, cover=max(1, longer_side * min(width, height) // max(width, height)))


def _reason(error: ImageError) -> str:
    return str(error).removeprefix("corrupt image: ")


def _headless_kind(data: bytes, reason: str) -> str:
    """WebP and AVIF are opened as a whole, so that what is wrong anywhere shows there."""
    if reason.startswith("not an image"):
        return "not-image"
    return "truncated" if _is_short_webp(data) else "corrupt"


def _is_short_webp(data: bytes) -> bool:
    return data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _decode_rest(data: bytes) -> Image.Image | None:
    try:
        with _tolerance():
            return decode(data)
    except ImageError:
        return None


@contextmanager
def _tolerance() -> Iterator[None]:
    tolerate_truncated_images(True)
    try:
        yield
    finally:
        tolerate_truncated_images(False)


def _lacks_end(data: bytes, name: str, reason: str) -> bool:
    """A format that marks its end, without it; or the decoder's own word."""
    end = _ENDS.get(name)
    if end is not None:
        return end not in data[-len(end) - 64 :]
    return "truncated" in reason or _is_short_webp(data)


def _right_extension(name: str, extension: str) -> str:
    right = _EXTENSIONS.get(name, (extension,))
    return "" if extension in right else right[0]


def _misnamed(name: str, extension: str) -> str:
    return f"{name} named {extension}" if extension else f"{name} without an extension"


def _encode(image: Image.Image, longer_side: int | None) -> bytes:
    if longer_side and max(image.size) > longer_side:
        scale = longer_side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _put_aside(task: Task, data: bytes, *, link: bool) -> None:
    if link:
        try:
            os.link(Path(task.path).resolve(), task.aside)
        except OSError:
            pass  # another disk, or a file system without links: copied instead
        else:
            return
    with open(task.aside, "xb") as file:  # noqa: PTH123 (ten times faster)
        file.write(data)


_BATCH = 64  # photos handed over at once: few enough to share evenly, many enough to hide the handing over
_AHEAD = 4  # batches waiting for each worker
_PER_FOLDER = 1000


def aside(work: Path, number: int) -> Path:
    """Where a photo's bytes wait until it is known what becomes of it."""
    return work / "aside" / f"{number // _PER_FOLDER:06}" / f"{number:09}"


def check_photos(listing: Listing, work: Path, wishes: Wishes, jobs: int) -> list[Facts]:
    """Look at every photo in ``jobs`` processes: on small photos threads would wait for each other.

    Raises:
        DataError: a process was killed.
    """
    total = len(listing.photos)
    for start in range(0, total, _PER_FOLDER):
        aside(work, start).parent.mkdir(parents=True)
    facts: list[Facts] = []
    with progress("checking", total) as advance:
        for done in _run(_batches(listing, work), wishes, min(jobs, -(-total // _BATCH))):
            facts += done
            advance(len(done))
    return facts


def _batches(listing: Listing, work: Path) -> Iterator[list[Task]]:
    tasks = (Task(listing.path(photo), str(aside(work, i))) for i, photo in enumerate(listing.photos))
    while batch := list(islice(tasks, _BATCH)):
        yield batch


def _run(batches: Iterator[Sequence[Task]], wishes: Wishes, jobs: int) -> Iterator[list[Facts]]:
    if jobs <= 1:
        yield from (inspect_all(batch, wishes) for batch in batches)
        return
    # A forked process would inherit the locks of the progress bar's thread.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as executor:
        _start(executor, jobs)
        waiting: deque[Future[list[Facts]]] = deque()
        try:
            for batch in batches:
                waiting.append(executor.submit(inspect_all, batch, wishes))
                if len(waiting) >= jobs * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a process that checked photos was killed, most often for lack of memory: try again with --jobs 1"
            ) from None
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _start(executor: ProcessPoolExecutor, jobs: int) -> None:
    """Start the processes deaf to Ctrl-C, which reaches all of a terminal's: this one alone answers it, for all."""
    resource_tracker.ensure_running()  # started later, it would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(jobs):
            executor.submit(int)  # a process is started for each task that finds none idle
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
