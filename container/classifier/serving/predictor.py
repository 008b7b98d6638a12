"""A loaded model: photos are decoded in the caller's thread and classified in batches."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from classifier.engine.base import Engine
from classifier.engine.opening import open_engine
from classifier.errors import ImageError, UserError
from classifier.host import num_cores
from classifier.serving.batching import Batcher, PendingRequest
from classifier.serving.codec import Instance, Outcome, Prediction
from classifier.serving.decoders import Decoders
from classifier.serving.errors import BusyError, DeadlineError
from classifier.serving.settings import MIB, ServerSettings
from classifier.vision.images import RGB_BYTES, OpenedImage, check_decoded_size
from classifier.vision.manifest import ModelManifest
from classifier.vision.preprocessing import Preprocessing

# Bytes of pixels that may wait for the engine; the queue's capacity follows from a photo's size.
QUEUED_PIXELS = 64 * MIB
# Far above the time of any batch, far below the platform's timeout of a request.
STUCK_S = 30.0
# Far above any photo's value after normalization, far below what overflows in half precision.
MAX_NORMALIZED = 1000.0
# Between two attempts to queue the next photos of a request whose first ones are classified already.
RETRY_S = 0.02
# What a request's time is spent on: waiting for a decoder, decoding, waiting for the engine, and the engine.
STAGES = ("wait", "decode", "queue", "infer")


class PredictionMetrics(Protocol):
    """A recorder of the predictor's timings, such as ``Telemetry``."""

    def record_stage(self, name: str, seconds: float) -> None:
        """Record the time of one request in a stage: wait (for a decoder), decode, queue or infer."""
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


@dataclass
class _Run:
    """One call of ``predict``: its deadline on the monotonic clock, and what it has done so far."""

    job: Job
    deadline: float
    num_classified: int = 0
    stages_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def remaining_s(self) -> float:
        """Seconds until the deadline."""
        return max(self.deadline - time.monotonic(), 0)


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
        self._decoders = Decoders(
            num_cores(), max_decoded=settings.max_decoded, max_waiting=max(settings.max_requests // 2, 1)
        )
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
        list(predictor.predict([_gray_photo(manifest.preprocessing)]))
        return predictor

    @property
    def queue_depth(self) -> int:
        """Number of photos that wait for the engine."""
        return self._batcher.depth

    @property
    def decode_queue_depth(self) -> int:
        """Number of photos that wait for a decoder."""
        return self._decoders.depth

    def is_answering(self) -> bool:
        """Whether the engine works and is not stuck. Takes no lock."""
        return self._batcher.is_answering(STUCK_S)

    def predict(self, instances: Iterable[Instance], job: Job | None = None) -> Iterator[Outcome]:
        """Decode and classify photos, as the outcomes are taken: ``max_instances`` at a time, whatever their number.

        Args:
            instances: as ``codec.decode`` returns them.
            job: the request's context; its stage times are filled in with the last outcome.

        Yields:
            A prediction, or the reason why there is none, for each instance, in order.

        Raises:
            BusyError: the queue is full.
            DeadlineError: the photos were not classified within the request's timeout, or the caller disconnected.
        """
        run = _Run(job or Job(), time.monotonic() + self._settings.request_timeout_s)
        remaining = iter(instances)
        while chunk := self._decode_chunk(remaining, run):
            requests = [PendingRequest(one, run.job.is_wanted) for one in chunk if isinstance(one, np.ndarray)]
            self._submit(requests, run)
            yield from self._collect(chunk, requests, run)
        run.job.stages_s = run.stages_s
        for name, seconds in run.stages_s.items():
            self._metrics.record_stage(name, seconds)

    def close(self) -> None:
        """Answer what is queued, then release the engine."""
        self._batcher.close()

    def _decode_chunk(self, instances: Iterator[Instance], run: _Run) -> list[np.ndarray | UserError]:
        start, waited_s = time.monotonic(), run.stages_s["wait"]
        chunk = [self._pixels(one, run) for one in islice(instances, self._settings.max_instances)]
        run.stages_s["decode"] += time.monotonic() - start - (run.stages_s["wait"] - waited_s)
        return chunk

    def _submit(self, requests: list[PendingRequest], run: _Run) -> None:
        while True:
            try:
                self._batcher.submit(requests)
            except BusyError:
                if not run.num_classified or run.remaining_s() <= RETRY_S:
                    raise
                # A caller who tried again would send everything again.
                time.sleep(RETRY_S)
            else:
                run.num_classified += len(requests)
                return

    def _collect(
        self, chunk: Sequence[np.ndarray | UserError], requests: Sequence[PendingRequest], run: _Run
    ) -> list[Outcome]:
        start = time.monotonic()
        waiting = iter(requests)
        outcomes = [one if isinstance(one, UserError) else self._prediction(next(waiting), run) for one in chunk]
        queued_s = max((request.queued_s for request in requests), default=0.0)
        run.stages_s["queue"] += queued_s
        run.stages_s["infer"] += time.monotonic() - start - queued_s
        return outcomes

    def _prediction(self, request: PendingRequest, run: _Run) -> Outcome:
        logits = request.result(run.remaining_s())
        if not np.isfinite(logits).all():
            return ImageError("the model's output for this image is not finite")
        return Prediction(
            labels=self._labels,
            class_names=self._class_names,
            logits=logits,
            temperature=self.manifest.temperature,
        )

    def _pixels(self, instance: Instance, run: _Run) -> np.ndarray | UserError:
        if isinstance(instance, UserError):
            return instance
        try:
            if isinstance(instance, bytes):
                opened = self.manifest.preprocessing.open(instance, max_decoded=self._settings.max_decoded)
                return self._with_slot(opened.num_bytes, run, lambda: self._crop(opened))
            return self._with_slot(_rgb_bytes(instance), run, lambda: self._from_array(instance))
        except ImageError as error:
            return error

    def _with_slot(self, num_bytes: int, run: _Run, decode: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.monotonic()
        with self._decoders.slot(num_bytes, run.remaining_s()):
            run.stages_s["wait"] += time.monotonic() - start
            if not run.job.is_wanted():
                raise DeadlineError("the caller has disconnected")
            return decode()

    def _crop(self, opened: OpenedImage) -> np.ndarray:
        return self.manifest.preprocessing.crop_center(opened.decode())

    def _from_array(self, array: np.ndarray) -> np.ndarray:
        return self._from_pixels(array) if array.dtype == np.uint8 else self._from_tensor(array)

    def _from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Prepare uint8 (H, W, 3): used as they are in the model's input size, else resized and cropped as a photo."""
        side = self.manifest.preprocessing.crop
        if pixels.shape == (side, side, 3):
            return np.ascontiguousarray(pixels)
        check_decoded_size((pixels.shape[1], pixels.shape[0]), _rgb_bytes(pixels), self._settings.max_decoded)
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


def _rgb_bytes(array: np.ndarray) -> int:
    """The memory of a photo sent as an array, once it is an image."""
    return array.size // 3 * RGB_BYTES


def _gray_photo(preprocessing: Preprocessing) -> np.ndarray:
    return np.full((preprocessing.crop, preprocessing.crop, 3), 128, np.uint8)
