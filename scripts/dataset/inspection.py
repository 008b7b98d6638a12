"""Inspection of photos: each is read once, checked, resized if requested, and staged for its class folder."""

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
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image

from classifier.contract.channels import EXTENSIONS_BY_FORMAT
from classifier.errors import DataError, ImageError, ImageTooLargeError
from classifier.vision.images import decode, open_image, share_large_slot, tolerate_truncated_images
from dataset.listing import Listing
from dataset.progress import progress

MAX_BYTES = 512_000_000  # larger than any photo that decode() accepts
_QUALITY = 92
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
_BATCH_SIZE = 64  # photos per task of a worker: few enough to share evenly, enough to hide the cost of passing them
_QUEUED_PER_WORKER = 4  # batches
_PHOTOS_PER_FOLDER = 1000
_HASH_SIDE = 16  # frequencies of the hash in each direction
HASH_BITS = _HASH_SIDE**2
_HASHED_SIDE = 4 * _HASH_SIDE  # pixels to which a photo is scaled before
# A forked process would inherit the locks of the progress bar's thread.
_PROCESSES = multiprocessing.get_context("spawn")


class InspectionOptions(NamedTuple):
    """How to inspect photos. Sides are in pixels; with ``longer_side`` None, photos are not resized."""

    min_side: int
    longer_side: int | None
    repair_truncated: bool
    keep_tiny: bool
    link: bool


class InspectionTask(NamedTuple):
    """A file to inspect, and where to stage it."""

    path: str
    staged_path: str


class Inspection(NamedTuple):
    """The result for one photo.

    Attributes:
        digest: a hash of the bytes that were read, or None if the photo was not staged.
        size: bytes of the staged file.
        extension: the extension that the staged file should have, or empty if it has a right one.
        defect: the kind of defect, or empty.
        reencoded: whether the staged file was resized or repaired.
        perceptual_hash: ``HASH_BITS`` bits, of which few differ between photos that look alike.
    """

    digest: bytes | None
    size: int = 0
    width: int = 0
    height: int = 0
    extension: str = ""
    defect: str = ""
    reason: str = ""
    reencoded: bool = False
    perceptual_hash: bytes = b""


def staging_path(work: Path, number: int) -> Path:
    """Return where a photo is kept until it is selected and named."""
    return work / "staging" / f"{number // _PHOTOS_PER_FOLDER:06}" / f"{number:09}"


def inspect_photos(listing: Listing, work: Path, options: InspectionOptions, jobs: int) -> list[Inspection]:
    """Inspect every photo in ``jobs`` processes; threads would block each other on small photos.

    Raises:
        DataError: a worker process was killed.
    """
    total = len(listing.photos)
    for start in range(0, total, _PHOTOS_PER_FOLDER):
        staging_path(work, start).parent.mkdir(parents=True)
    inspections: list[Inspection] = []
    with progress("checking", total) as advance:
        for batch in _run(_batches(listing, work), options, min(jobs, -(-total // _BATCH_SIZE))):
            inspections += batch
            advance(len(batch))
    return inspections


def _batches(listing: Listing, work: Path) -> Iterator[list[InspectionTask]]:
    tasks = (
        InspectionTask(listing.absolute_path(photo), str(staging_path(work, number)))
        for number, photo in enumerate(listing.photos)
    )
    while batch := list(islice(tasks, _BATCH_SIZE)):
        yield batch


def _run(
    batches: Iterator[Sequence[InspectionTask]], options: InspectionOptions, jobs: int
) -> Iterator[list[Inspection]]:
    if jobs <= 1:
        yield from (inspect_batch(batch, options) for batch in batches)
        return
    with open_pool(jobs, _PROCESSES.Lock()) as executor:
        queue: deque[Future[list[Inspection]]] = deque()
        try:
            for batch in batches:
                queue.append(executor.submit(inspect_batch, batch, options))
                if len(queue) >= jobs * _QUEUED_PER_WORKER:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        except BrokenProcessPool:
            raise DataError(
                "a process that checks photos was killed, most often for lack of memory: try again with --jobs 1"
            ) from None
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def open_pool(jobs: int, large_slot: Lock) -> Iterator[ProcessPoolExecutor]:
    """Start processes that share ``large_slot`` for decoding large photos, so that one at a time takes the memory."""
    with ProcessPoolExecutor(jobs, _PROCESSES, initializer=share_large_slot, initargs=(large_slot,)) as executor:
        _start_workers(executor, jobs)
        yield executor


def _start_workers(executor: ProcessPoolExecutor, jobs: int) -> None:
    """Start workers with SIGINT blocked: Ctrl-C reaches all processes of a terminal, and only the parent handles it."""
    resource_tracker.ensure_running()  # started later, it would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(jobs):
            executor.submit(int)  # a task that finds no idle worker starts one
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def inspect_batch(tasks: Sequence[InspectionTask], options: InspectionOptions) -> list[Inspection]:
    """Inspect several photos; see ``inspect``."""
    return [inspect(task, options) for task in tasks]


def inspect(task: InspectionTask, options: InspectionOptions) -> Inspection:
    """Read and check a photo, and stage it if it is usable; a defect is part of the result, never raised."""
    try:
        data = _read(task.path)
    except OSError as error:
        return Inspection(None, defect="missing", reason=error.strerror or str(error))
    if data is None:
        return Inspection(None, defect="not-image", reason=f"more than {MAX_BYTES:,} bytes, too many for a photo")
    extension = os.path.splitext(task.path)[1].lower()  # noqa: PTH122 (ten times faster)
    inspection, encoded = _inspect_bytes(data, extension, options)
    if inspection.digest is not None:
        _stage(task, data if encoded is None else encoded, link=options.link and encoded is None)
    return inspection


def _read(path: str) -> bytes | None:
    with open(path, "rb") as file:  # noqa: PTH123 (ten times faster)
        data = file.read(MAX_BYTES + 1)
    return data if len(data) <= MAX_BYTES else None


def _inspect_bytes(data: bytes, extension: str, options: InspectionOptions) -> tuple[Inspection, bytes | None]:
    """Return the result, and the encoded bytes to stage instead of those that were read, if the photo is changed."""
    size = len(data)
    try:
        opened = open_image(data, cover=1)
    except ImageError as error:
        return Inspection(None, size, defect=_header_defect(data, error), reason=_reason(error)), None
    name, (width, height) = opened.format, opened.full_size
    defect = reason = ""
    image = None
    try:
        image = _decode(data, width, height, options.longer_side)
    except ImageError as error:
        reason = _reason(error)
        defect = _defect_of_pixels(data, name, error)
        if defect == "truncated" and options.repair_truncated:
            image = _decode_truncated(data)
    if image is None:
        return Inspection(None, size, width, height, defect=defect, reason=reason), None
    digest, looks = blake2b(data, digest_size=16).digest(), _hash_looks(image)
    right = _right_extension(name, extension)
    if min(width, height) < options.min_side and not (defect and options.keep_tiny):
        tiny = f"{width} × {height} pixels"
        kept = digest if options.keep_tiny else None
        return Inspection(kept, size, width, height, right, "tiny", tiny, perceptual_hash=looks), None
    if right and not defect:
        defect, reason = "extension", _describe_wrong_extension(name, extension)
    if image is not None and (defect == "truncated" or _is_larger(width, height, options.longer_side)):
        encoded = _encode(image, options.longer_side)
        jpeg = "" if extension in EXTENSIONS_BY_FORMAT["JPEG"] else EXTENSIONS_BY_FORMAT["JPEG"][0]
        inspection = Inspection(digest, len(encoded), width, height, jpeg, defect, reason, True, looks)
        return inspection, encoded
    return Inspection(digest, size, width, height, right, defect, reason, False, looks), None


def _hash_looks(image: Image.Image) -> bytes:
    return np.packbits(imagehash.phash(image, hash_size=_HASH_SIDE).hash).tobytes()


def _is_larger(width: int, height: int, longer_side: int | None) -> bool:
    return longer_side is not None and max(width, height) > longer_side


def _decode(data: bytes, width: int, height: int, longer_side: int | None) -> Image.Image:
    """Decode at the smallest scale that suffices: damage shows at JPEG's smallest scale as well as at full size."""
    if not _is_larger(width, height, longer_side) or longer_side is None:
        return decode(data, cover=_HASHED_SIDE)
    return decode(data, cover=max(_HASHED_SIDE, longer_side * min(width, height) // max(width, height)))


def _defect_of_pixels(data: bytes, name: str, error: ImageError) -> str:
    if isinstance(error, ImageTooLargeError):
        return "too-large"
    return "truncated" if _is_truncated(data, name, str(error)) else "corrupt"


def _reason(error: ImageError) -> str:
    return str(error).removeprefix("corrupt image: ")


def _header_defect(data: bytes, error: ImageError) -> str:
    """Classify an image that can't be opened; WebP and AVIF are parsed as a whole when they are opened."""
    if isinstance(error, ImageTooLargeError):
        return "too-large"
    if str(error).startswith("not an image"):
        return "not-image"
    return "truncated" if _is_truncated_webp(data) else "corrupt"


def _is_truncated_webp(data: bytes) -> bool:
    return data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _is_truncated(data: bytes, name: str, reason: str) -> bool:
    """Whether a format's end marker is missing, or for a format without one whether the decoder says so."""
    end = _END_MARKERS.get(name)
    if end is not None:
        return end not in data[-len(end) - 64 :]
    return "truncated" in reason or _is_truncated_webp(data)


def _decode_truncated(data: bytes) -> Image.Image | None:
    try:
        with _truncated_images_tolerated():
            return decode(data)
    except ImageError:
        return None


@contextmanager
def _truncated_images_tolerated() -> Iterator[None]:
    tolerate_truncated_images(True)
    try:
        yield
    finally:
        tolerate_truncated_images(False)


def _right_extension(name: str, extension: str) -> str:
    right = EXTENSIONS_BY_FORMAT.get(name, (extension,))
    return "" if extension in right else right[0]


def _describe_wrong_extension(name: str, extension: str) -> str:
    return f"{name} with the extension {extension}" if extension else f"{name} without an extension"


def _encode(image: Image.Image, longer_side: int | None) -> bytes:
    if longer_side and max(image.size) > longer_side:
        scale = longer_side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def _stage(task: InspectionTask, data: bytes, *, link: bool) -> None:
    if link:
        try:
            os.link(Path(task.path).resolve(), task.staged_path)
        except OSError:
            pass  # another disk, or a file system without links: copied instead
        else:
            return
    with open(task.staged_path, "xb") as file:  # noqa: PTH123 (ten times faster)
        file.write(data)
