"""torch on a GPU: channels last, half precision, and one CUDA graph per batch size.

A batch is padded to the next size that has a graph, and the padding's logits are dropped. All graphs are captured while
the engine is constructed, share one pool of memory, and so are replayed one after the other. Two slots overlap the copy
of the next batch with the replay of the present one.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.engine.gpu import check_gpu_is_usable
from classifier.vision import artifact
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import ModelManifest

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
NUM_SLOTS = 2
WARM_UPS = 3


def bucket_for(num_photos: int, buckets: tuple[int, ...]) -> int:
    """The smallest of the (ascending) buckets that fits ``num_photos``."""
    return next(size for size in buckets if size >= num_photos)


@dataclass(frozen=True)
class _Run:
    """One batch size: ``start`` computes the logits, in their fixed buffer, from the pixels, in theirs."""

    pixels: Tensor
    logits: Tensor
    start: Callable[[], object]


class TorchEngine:
    """A classifier on a device. On a CPU, as in tests, it runs without CUDA graphs."""

    def __init__(
        self, classifier: Classifier, *, device: torch.device, side: int, buckets: tuple[int, ...] = BUCKETS
    ) -> None:
        self._classifier: Classifier | None = classifier.to(device).eval()
        self._device = device
        self._buckets = buckets
        self._dtype = _choose_dtype(classifier, device, side)
        classifier.network.to(self._dtype)
        # Both kinds of input are floats in 0–255 here, so that one set of graphs serves both.
        pixels = torch.zeros(buckets[-1], side, side, 3, device=device)
        on_gpu = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if on_gpu else None
        run_of = self._capture if on_gpu else self._run_eagerly
        with torch.inference_mode():
            # The largest first, so that the smaller ones reuse its memory.
            self._runs = {size: run_of(pixels[:size]) for size in sorted(buckets, reverse=True)}
        self._slots = [_Slot(device, self._runs[buckets[-1]]) for _ in range(NUM_SLOTS)]
        # One replay at a time: the graphs share memory.
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream(device) if on_gpu else None

    @classmethod
    def open(cls, folder: Path, manifest: ModelManifest) -> "TorchEngine":
        """Load an artifact onto the first GPU.

        Raises:
            ArtifactError: the folder has no artifact, or one whose files do not match.
            ConfigError: torch can't use the GPU.
        """
        check_gpu_is_usable()
        return _owner().submit(cls._open, folder, manifest).result()

    @classmethod
    def _open(cls, folder: Path, manifest: ModelManifest) -> "TorchEngine":
        device = torch.device("cuda", 0)
        torch.backends.cudnn.benchmark = True
        with torch.cuda.stream(_capture_stream(device)):
            classifier, _ = artifact.load(folder, device)
            return cls(classifier, device=device, side=manifest.preprocessing.crop)

    @property
    def name(self) -> str:
        """``torch``, the precision and the device."""
        return f"torch {str(self._dtype).removeprefix('torch.')} on {self._device.type}"

    @property
    def num_slots(self) -> int:
        """2: one batch is copied while the other is computed."""
        return NUM_SLOTS

    @property
    def max_batch(self) -> int:
        """The largest batch size that has a graph."""
        return self._buckets[-1]

    def infer(self, slot: int, pixels: np.ndarray) -> np.ndarray:
        """Run one batch: uint8 or float32 (N, S, S, 3) in 0–255, N ≤ ``max_batch``, to float32 (N, num_classes)."""
        buffers, photos = self._slots[slot], torch.from_numpy(np.ascontiguousarray(pixels))
        logits = torch.empty(len(photos), buffers.logits.shape[1])
        step = buffers.capacity(photos)
        with torch.inference_mode():
            for part, row in zip(photos.split(step), logits.split(step), strict=True):
                self._infer(buffers, part)
                row.copy_(buffers.logits[: len(part)])
        return logits.numpy()

    def close(self) -> None:
        """Release the graphs and their buffers, and return their memory to the device."""
        if self._device.type == "cuda":
            # By the thread that captures: during a capture torch returns no memory, and does not say so.
            _owner().submit(self._release).result()
        else:
            self._release()

    def _release(self) -> None:
        self._runs.clear()
        self._slots.clear()
        self._classifier = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _infer(self, slot: "_Slot", photos: Tensor) -> None:
        """Compute the logits of at most ``slot.capacity`` photos into ``slot.logits``."""
        staged, run = slot.stage(photos), self._runs[bucket_for(len(photos), self._buckets)]
        with self._lock, torch.cuda.stream(self._stream) if self._stream else nullcontext():
            slot.wait_until_staged(self._stream)
            run.pixels[: len(photos)].copy_(staged, non_blocking=True)
            run.start()
            slot.logits[: len(photos)].copy_(run.logits[: len(photos)], non_blocking=True)
            slot.mark_done(self._stream)
        slot.wait_until_done()

    def _forward(self, pixels: Tensor) -> Tensor:
        assert self._classifier is not None
        # Normalized in fp32, then cast, which keeps the rounding error of the pixels small.
        normalized = self._classifier.normalize(pixels.permute(0, 3, 1, 2))
        return self._classifier.network(normalized.to(self._dtype)).float()

    def _run_eagerly(self, pixels: Tensor) -> _Run:
        logits = self._forward(pixels)
        return _Run(pixels, logits, lambda: logits.copy_(self._forward(pixels)))

    def _capture(self, pixels: Tensor) -> _Run:
        stream = _capture_stream(self._device)
        with torch.cuda.stream(stream):
            # cuDNN selects its fastest algorithms during the first runs, which must not be captured. On the stream of
            # the capture, since cuBLAS allocates a workspace for each stream, which must not be in the graphs' pool.
            for _ in range(WARM_UPS):
                self._forward(pixels)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may go on using the GPU, which serves other models meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            logits = self._forward(pixels)
        return _Run(pixels, logits, graph.replay)


class _Slot:
    """Buffers of one of the batches under way: on the host, page-locked so that copies are asynchronous, and staged.

    Attributes:
        logits: on the host, float32 (max_batch, num_classes).
    """

    def __init__(self, device: torch.device, largest: _Run) -> None:
        on_gpu = device.type == "cuda"
        max_batch, side = largest.pixels.shape[:2]
        # For a whole batch of bytes, or a quarter of one of floats, of which few ever come.
        num_bytes = max(max_batch, 4) * side * side * 3
        self._host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=on_gpu)
        self._staged = torch.empty(num_bytes, dtype=torch.uint8, device=device) if on_gpu else self._host
        self.logits = torch.empty(largest.logits.shape, pin_memory=on_gpu)
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self._was_staged = torch.cuda.Event() if on_gpu else None
        # blocking: the thread sleeps meanwhile, and leaves its core to those that decode.
        self._was_done = torch.cuda.Event(blocking=True) if on_gpu else None
        self._max_batch = max_batch

    def capacity(self, photos: Tensor) -> int:
        """Number of photos of this type that fit."""
        return min(self._max_batch, len(self._host) // (photos[0].numel() * photos.element_size()))

    def stage(self, photos: Tensor) -> Tensor:
        """Start copying photos to the device, and return them there."""
        source, target = (_view(buffer, photos) for buffer in (self._host, self._staged))
        source.copy_(photos)
        if self._stream is not None and self._was_staged is not None:
            with torch.cuda.stream(self._stream):
                target.copy_(source, non_blocking=True)
                self._was_staged.record()
        return target

    def wait_until_staged(self, stream: torch.cuda.Stream | None) -> None:
        """Let a stream wait for the copy."""
        if stream is not None and self._was_staged is not None:
            self._was_staged.wait(stream)

    def mark_done(self, stream: torch.cuda.Stream | None) -> None:
        """Note that the work so far in a stream ends the batch."""
        if stream is not None and self._was_done is not None:
            self._was_done.record(stream)

    def wait_until_done(self) -> None:
        """Wait for the batch."""
        if self._was_done is not None:
            self._was_done.synchronize()


def _view(buffer: Tensor, like: Tensor) -> Tensor:
    """Return the beginning of a buffer of bytes, seen as a tensor of another's type and shape."""
    return buffer[: like.numel() * like.element_size()].view(like.dtype).view(like.shape)


@cache
def _owner() -> ThreadPoolExecutor:
    """The thread that opens engines and returns memory, one at a time.

    cuDNN's and cuBLAS's handles, workspaces and found algorithms are per thread and never freed.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="cuda")


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures: one, since cuBLAS keeps a workspace for each stream.

    Of high priority, because torch hands out 32 streams of each priority in turn: this one is never an engine's, whose
    work would become part of the graph of a model that is loaded meanwhile.
    """
    return torch.cuda.Stream(device, priority=-1)


def _choose_dtype(classifier: Classifier, device: torch.device, side: int) -> torch.dtype:
    """fp16 on a GPU if the network's logits stay finite in it; else fp32."""
    if device.type != "cuda":
        return torch.float32
    generator = torch.Generator(device="cpu").manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator).to(device)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16):
        logits = classifier(noise)
    return torch.float16 if bool(torch.isfinite(logits).all()) else torch.float32
