"""torch on a GPU: channels last, half precision, and one CUDA graph per batch size.

A batch is padded to the next size that has a graph, and the padding's logits are dropped. All graphs are captured while
the engine is constructed.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier.vision import artifact
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import ModelManifest

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
WARM_UPS = 3


@dataclass(frozen=True)
class _Graph:
    """One captured batch size, with the fixed input and output buffers that a replay reads and writes."""

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    logits: Tensor


def bucket_for(num_photos: int, buckets: tuple[int, ...]) -> int:
    """The smallest of the (ascending) buckets that fits ``num_photos``."""
    return next(size for size in buckets if size >= num_photos)


class TorchEngine:
    """A classifier on a device. On a CPU, as in tests, it runs without CUDA graphs."""

    def __init__(
        self, classifier: Classifier, *, device: torch.device, side: int, buckets: tuple[int, ...] = BUCKETS
    ) -> None:
        self._classifier = classifier.to(device).eval()
        self._device = device
        self._buckets = buckets
        self._dtype = _choose_dtype(self._classifier, device, side)
        self._classifier.network.to(self._dtype)
        # One replay at a time: the graphs share memory.
        self._lock = threading.Lock()
        self._graphs: dict[int, _Graph] = {}
        if device.type == "cuda":
            # The largest first, so that the smaller ones reuse its memory.
            for size in sorted(buckets, reverse=True):
                self._graphs[size] = self._capture(size, side)

    @classmethod
    def open(cls, folder: Path, manifest: ModelManifest) -> "TorchEngine":
        """Load an artifact onto the first GPU.

        Raises:
            ArtifactError: the folder has no artifact, or one whose files do not match.
        """
        device = torch.device("cuda")
        torch.backends.cudnn.benchmark = True
        classifier, _ = artifact.load(folder, device)
        return cls(classifier, device=device, side=manifest.preprocessing.crop)

    @property
    def name(self) -> str:
        """``torch``, the precision and the device."""
        return f"torch {str(self._dtype).removeprefix('torch.')} on {self._device.type}"

    @property
    def num_slots(self) -> int:
        """1: a batch has the whole GPU."""
        return 1

    @property
    def max_batch(self) -> int:
        """The largest batch size that has a graph."""
        return self._buckets[-1]

    def infer(self, slot: int, pixels: np.ndarray) -> np.ndarray:
        """Run one batch: uint8 or float32 (N, S, S, 3) in 0–255, N ≤ ``max_batch``, to float32 (N, num_classes)."""
        assert slot == 0
        size = bucket_for(len(pixels), self._buckets)
        with self._lock, torch.inference_mode():
            if pixels.dtype == np.uint8 and size in self._graphs:
                return self._replay(self._graphs[size], pixels)
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
            return self._forward(batch).cpu().numpy()

    def close(self) -> None:
        """Release the graphs and their buffers."""
        self._graphs.clear()

    def _forward(self, pixels: Tensor) -> Tensor:
        # Normalized in fp32, then cast, which keeps the rounding error of the pixels small.
        normalized = self._classifier.normalize(pixels.permute(0, 3, 1, 2))
        return self._classifier.network(normalized.to(self._dtype)).float()

    def _replay(self, captured: _Graph, pixels: np.ndarray) -> np.ndarray:
        captured.pixels[: len(pixels)].copy_(torch.from_numpy(np.ascontiguousarray(pixels)))
        captured.graph.replay()
        # cpu() synchronizes with the replay.
        return captured.logits[: len(pixels)].cpu().numpy()

    def _capture(self, size: int, side: int) -> _Graph:
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8, device=self._device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # cuDNN selects its fastest algorithms during the first runs, which must not be captured.
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._forward(pixels)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            logits = self._forward(pixels)
        return _Graph(graph, pixels, logits)


def _choose_dtype(classifier: Classifier, device: torch.device, side: int) -> torch.dtype:
    """fp16 on a GPU if the network's logits stay finite in it; else fp32."""
    if device.type != "cuda":
        return torch.float32
    generator = torch.Generator(device="cpu").manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator).to(device)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16):
        logits = classifier(noise)
    return torch.float16 if bool(torch.isfinite(logits).all()) else torch.float32
