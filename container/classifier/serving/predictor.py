"""A loaded model: photos are decoded in the caller's thread and classified in batches."""

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
from classifier.serving.batching import Batcher, PendingRequest
from classifier.serving.codec import Instance, Outcome, Prediction
from classifier.serving.errors import DeadlineError
from classifier.serving.settings import MIB, ServerSettings
from classifier.vision.manifest import ModelManifest
from classifier.vision.preprocessing import Preprocessing

# Bytes of pixels that may wait for the engine; the queue's capacity follows from a photo's size.
QUEUED_PIXELS = 64 * MIB
# Far above the time of any batch, far below the platform's timeout of a request.
STUCK_S = 30.0
# Far above any photo's value after normalization, far below what overflows in half precision.
MAX_NORMALIZED = 1000.0


class PredictionMetrics(Protocol):
    """A recorder of the predictor's timings, such as ``Telemetry``."""

    def record_stage(self, name: str, seconds: float) -> None:
        """Record the time of one request in a stage: decode, queue or infer."""
        ...

    def record_batch(self, size: int, seconds: float) -> None:
        """Record a batch: its number of photos and its time in the engine."""
        ...


class NullMetrics:
    """Metrics that record nothing."""

    def record_stage(self, name: str, seconds: float) -> None:
        """Do nothing."""

    def record_batch(self, size: int, seconds: float) -> None:
        """Do nothing."""


@dataclass(kw_only=True)
class Job:
    """The context of one request: whether its caller is still connected, and the seconds spent in each stage."""

    is_wanted: Callable[[], bool] = lambda: True
    stages_s: dict[str, float] = field(default_factory=dict)


class Predictor:
    """A model ready to classify photos, safe to use from several threads.

    Args:
        engine: runs the batches; closed with the predictor.
        manifest: the artifact's classes and preprocessing.
        settings: limits and timeouts.
        metrics: records timings; by default nothing is recorded.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: ModelManifest,
        settings: ServerSettings,
        metrics: PredictionMetrics | None = None,
    ) -> None:
        self.manifest = manifest
        self.engine_name = engine.name
        self._settings = settings
        self._metrics = metrics or NullMetrics()
        side = manifest.preprocessing.crop
        capacity = max(QUEUED_PIXELS // (side * side * 3), settings.max_instances)
        self._batcher = Batcher(engine, capacity=capacity, observe=self._metrics.record_batch)
        # More decoders than cores would only take turns, and each of them holds a decoded image.
        self._decoders = threading.BoundedSemaphore(num_cores())
        self._labels = [one.label for one in manifest.classes]
        self._class_names = [one.class_name for one in manifest.classes]

    @classmethod
    def open(cls, folder: Path, settings: ServerSettings, metrics: PredictionMetrics | None = None) -> "Predictor":
        """Load an artifact and run one prediction to check and warm it up.

        Raises:
            ArtifactError: the folder has no artifact, or one whose files do not match.
        """
        manifest = ModelManifest.read(folder)
        predictor = cls(open_engine(folder, manifest), manifest, settings, metrics)
        predictor.predict([_gray_photo(manifest.preprocessing)])
        return predictor

    @property
    def queue_depth(self) -> int:
        """Number of photos that wait for the engine."""
        return self._batcher.depth

    def is_answering(self) -> bool:
        """Whether the engine works and is not stuck. Takes no lock."""
        return self._batcher.is_answering(STUCK_S)

    def predict(self, instances: Sequence[Instance], job: Job | None = None) -> list[Outcome]:
        """Decode and classify photos.

        Args:
            instances: as ``codec.decode`` returns them.
            job: the request's context; its stage times are filled in.

        Returns:
            A prediction, or the reason why there is none, for each instance, in order.

        Raises:
            BusyError: the queue is full.
            DeadlineError: the photos were not classified within the request's timeout, or the caller disconnected.
        """
        job = job or Job()
        start = time.monotonic()
        deadline = start + self._settings.request_timeout_s
        pixels = [self._pixels(instance, job, deadline) for instance in instances]
        decoded = time.monotonic()
        requests = [PendingRequest(one, job.is_wanted) for one in pixels if isinstance(one, np.ndarray)]
        self._batcher.submit(requests)
        outcomes = self._collect(pixels, requests, deadline)
        queued_s = max((request.queued_s for request in requests), default=0.0)
        self._record(job, decode=decoded - start, queue=queued_s, infer=time.monotonic() - decoded - queued_s)
        return outcomes

    def close(self) -> None:
        """Answer what is queued, then release the engine."""
        self._batcher.close()

    def _collect(
        self, pixels: Sequence[np.ndarray | ImageError], requests: Sequence[PendingRequest], deadline: float
    ) -> list[Outcome]:
        waiting = iter(requests)
        return [one if isinstance(one, ImageError) else self._prediction(next(waiting), deadline) for one in pixels]

    def _prediction(self, request: PendingRequest, deadline: float) -> Outcome:
        logits = request.result(max(deadline - time.monotonic(), 0))
        if not np.isfinite(logits).all():
            return ImageError("the model's output for this image is not finite")
        return Prediction(
            labels=self._labels,
            class_names=self._class_names,
            logits=logits,
            temperature=self.manifest.temperature,
        )

    def _pixels(self, instance: Instance, job: Job, deadline: float) -> np.ndarray | ImageError:
        if isinstance(instance, ImageError):
            return instance
        if not self._decoders.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise DeadlineError("no core was free in time to decode the image")
        try:
            if not job.is_wanted():
                raise DeadlineError("the caller has disconnected")
            return self._decode(instance)
        except ImageError as error:
            return error
        finally:
            self._decoders.release()

    def _decode(self, instance: bytes | np.ndarray) -> np.ndarray:
        if isinstance(instance, bytes):
            return self.manifest.preprocessing.pixels_of(instance, max_pixels=self._settings.max_pixels)
        if instance.dtype == np.uint8:
            return self._from_pixels(instance)
        return self._from_tensor(instance)

    def _from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Prepare uint8 (H, W, 3): used as they are in the model's input size, else resized and cropped as a photo."""
        side = self.manifest.preprocessing.crop
        if pixels.shape == (side, side, 3):
            return np.ascontiguousarray(pixels)
        if pixels.shape[0] * pixels.shape[1] > self._settings.max_pixels:
            raise ImageError(f"{pixels.shape[1]} × {pixels.shape[0]} pixels; at most {self._settings.max_pixels:,}")
        return self.manifest.preprocessing.crop_center(Image.fromarray(np.ascontiguousarray(pixels)))

    def _from_tensor(self, tensor: np.ndarray) -> np.ndarray:
        """Convert a normalized tensor (3, S, S) to float32 pixels (S, S, 3) in 0–255; the graph normalizes again."""
        preprocessing = self.manifest.preprocessing
        side = preprocessing.crop
        if tensor.shape != (3, side, side):
            raise ImageError(f"the tensor is {tensor.shape}; this model takes (N, 3, {side}, {side})")
        # Written such that NaN fails, too.
        if not (np.abs(tensor) < MAX_NORMALIZED).all():
            raise ImageError("the tensor has values that no normalized photo has")
        mean, std = np.asarray(preprocessing.mean, np.float32), np.asarray(preprocessing.std, np.float32)
        return np.ascontiguousarray((tensor.astype(np.float32).transpose(1, 2, 0) * std + mean) * np.float32(255))

    def _record(self, job: Job, **stages_s: float) -> None:
        job.stages_s = stages_s
        for name, seconds in stages_s.items():
            self._metrics.record_stage(name, seconds)


def _gray_photo(preprocessing: Preprocessing) -> np.ndarray:
    return np.full((preprocessing.crop, preprocessing.crop, 3), 128, np.uint8)
