"""Photos → predictions: decode in the caller's thread, infer in a batch."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from classifier.engine.base import Engine
from classifier.engine.opening import open_engine
from classifier.errors import ImageError
from classifier.host import num_cores
from classifier.serving.batching import Batcher, Ticket
from classifier.serving.codec import Item, Outcome, Prediction
from classifier.serving.errors import DeadlineError
from classifier.serving.settings import MIB, Settings
from classifier.vision.manifest import ModelManifest
from classifier.vision.preprocessing import Preprocessing

# Memory for pixels that wait for the engine; the number of photos follows from their size.
QUEUED_PIXELS = 64 * MIB
# Far above any batch's time, far below the platform's patience with a request.
STUCK_S = 30.0
# Far above what a photo becomes by any mean and deviation, far below what overflows in half precision's arithmetic.
MAX_NORMALISED = 1000.0


class Callback(Protocol):
    """What a predictor tells of its work; telemetry's part."""

    def stage(self, name: str, seconds: float) -> None: ...

    def batch(self, size: int, seconds: float) -> None: ...


class Silent:
    """A callback that keeps nothing."""

    def stage(self, name: str, seconds: float) -> None: ...

    def batch(self, size: int, seconds: float) -> None: ...


@dataclass(kw_only=True)
class Job:
    """One request's way through the predictor: whether its caller is still there, and how long each stage took."""

    is_wanted: Callable[[], bool] = lambda: True
    stages_s: dict[str, float] = field(default_factory=dict)


class Predictor:
    """A loaded model."""

    def __init__(
        self, engine: Engine, manifest: ModelManifest, settings: Settings, callback: Callback | None = None
    ) -> None:
        self.manifest = manifest
        self.engine_name = engine.name
        self._settings = settings
        self._observer = callback or Silent()
        side = manifest.preprocessing.crop
        capacity = max(QUEUED_PIXELS // (side * side * 3), settings.max_instances)
        self._batcher = Batcher(engine, capacity=capacity, observe=self._observer.batch)
        # More decoders than cores would only take turns, and each holds a whole image.
        self._decoders = threading.BoundedSemaphore(num_cores())
        self._labels = [one.label for one in manifest.classes]
        self._class_names = [one.class_name for one in manifest.classes]

    @classmethod
    def open(cls, folder: Path, settings: Settings, callback: Callback | None = None) -> "Predictor":
        """Load an artifact and put one real prediction through it.

        Raises:
            ArtifactError: the folder holds no artifact, or one whose parts do not fit each other.
        """
        manifest = ModelManifest.read(folder)
        predictor = cls(open_engine(folder, manifest), manifest, settings, callback)
        predictor.predict([_grey_photo(manifest.preprocessing)])
        return predictor

    @property
    def queue_depth(self) -> int:
        return self._batcher.depth

    def is_answering(self) -> bool:
        """Whether the engine lives and moves. Takes no lock and no time."""
        return self._batcher.is_answering(STUCK_S)

    def predict(self, items: Sequence[Item], job: Job | None = None) -> list[Outcome]:
        """Photos → for each a prediction, or why there is none.

        Raises:
            BusyError: the queue is full.
            DeadlineError: the engine did not reach the photos in time.
        """
        job = job or Job()
        start = time.monotonic()
        deadline = start + self._settings.request_timeout_s
        pixels = [self._pixels(item, job, deadline) for item in items]
        decoded = time.monotonic()
        tickets = [Ticket(one, job.is_wanted) for one in pixels if isinstance(one, np.ndarray)]
        self._batcher.submit(tickets)
        outcomes = self._collect(pixels, tickets, deadline)
        queued_s = max((ticket.queued_s for ticket in tickets), default=0.0)
        self._tell(job, decode=decoded - start, queue=queued_s, infer=time.monotonic() - decoded - queued_s)
        return outcomes

    def close(self) -> None:
        """Answer what is queued, then let the engine go."""
        self._batcher.close()

    def _collect(
        self, pixels: Sequence[np.ndarray | ImageError], tickets: Sequence[Ticket], deadline: float
    ) -> list[Outcome]:
        waiting = iter(tickets)
        return [one if isinstance(one, ImageError) else self._prediction(next(waiting), deadline) for one in pixels]

    def _prediction(self, ticket: Ticket, deadline: float) -> Outcome:
        logits = ticket.result(max(deadline - time.monotonic(), 0))
        if not np.isfinite(logits).all():
            return ImageError("the model finds no finite answer for this")
        return Prediction(labels=self._labels, class_names=self._class_names, logits=logits)

    def _pixels(self, item: Item, job: Job, deadline: float) -> np.ndarray | ImageError:
        if isinstance(item, ImageError):
            return item
        if not self._decoders.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise DeadlineError("no core became free in time to decode the photo")
        try:
            if not job.is_wanted():
                raise DeadlineError("the caller has gone")
            return self._decode(item)
        except ImageError as error:
            return error
        finally:
            self._decoders.release()

    def _decode(self, item: bytes | np.ndarray) -> np.ndarray:
        if isinstance(item, bytes):
            return self.manifest.preprocessing.pixels_of(item, max_pixels=self._settings.max_pixels)
        if item.dtype == np.uint8:
            return self._from_pixels(item)
        return self._from_tensor(item)

    def _from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3). Of the model's own size they are taken as they are, of any other as a photo."""
        side = self.manifest.preprocessing.crop
        if pixels.shape == (side, side, 3):
            return np.ascontiguousarray(pixels)
        if pixels.shape[0] * pixels.shape[1] > self._settings.max_pixels:
            raise ImageError(f"{pixels.shape[1]} × {pixels.shape[0]} pixels; at most {self._settings.max_pixels:,}")
        return self.manifest.preprocessing.crop_center(Image.fromarray(np.ascontiguousarray(pixels)))

    def _from_tensor(self, tensor: np.ndarray) -> np.ndarray:
        """A normalised float32 tensor (3, S, S) → float32 pixels (S, S, 3) in 0–255: normalisation is in the graph."""
        preprocessing = self.manifest.preprocessing
        side = preprocessing.crop
        if tensor.shape != (3, side, side):
            raise ImageError(f"the tensor is {tensor.shape}; this model takes (N, 3, {side}, {side})")
        # Written so that it is false for what is no number, too.
        if not (np.abs(tensor) < MAX_NORMALISED).all():
            raise ImageError("the tensor holds values that no normalised photo has")
        mean, std = np.asarray(preprocessing.mean, np.float32), np.asarray(preprocessing.std, np.float32)
        return np.ascontiguousarray((tensor.astype(np.float32).transpose(1, 2, 0) * std + mean) * np.float32(255))

    def _tell(self, job: Job, **stages_s: float) -> None:
        job.stages_s = stages_s
        for name, seconds in stages_s.items():
            self._observer.stage(name, seconds)


def _grey_photo(preprocessing: Preprocessing) -> np.ndarray:
    return np.full((preprocessing.crop, preprocessing.crop, 3), 128, np.uint8)
