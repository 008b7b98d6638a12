"""torch on a GPU: channels last, half precision, and one CUDA graph for each size of batch that is run.

A batch is filled up to the next size that has a graph; what is filled in is thrown away. Every graph is captured, and
so run, before the engine is handed out.
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
    """One captured batch size: its input and output stay where they are, and a replay goes from one to the other."""

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    logits: Tensor


def bucket_for(num_photos: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds so many photos."""
    return next(size for size in buckets if size >= num_photos)


class TorchEngine:
    """A classifier on a device. On a CPU, where tests run it, it is the same but for the graphs."""

    def __init__(
        self, classifier: Classifier, *, device: torch.device, side: int, buckets: tuple[int, ...] = BUCKETS
    ) -> None:
        self._classifier = classifier.to(device).eval()
        self._device = device
        self._buckets = buckets
        self._dtype = _choose_dtype(self._classifier, device, side)
        self._classifier.network.to(self._dtype)
        # One replay at a time: the graphs share their memory.
        self._lock = threading.Lock()
        self._graphs: dict[int, _Graph] = {}
        if device.type == "cuda":
            # The largest first, so that the smaller ones find their memory already there.
            for size in sorted(buckets, reverse=True):
                self._graphs[size] = self._capture(size, side)

    @classmethod
    def open(cls, folder: Path, manifest: ModelManifest) -> "TorchEngine":
        """An artifact on the first GPU.

        Raises:
            ArtifactError: the folder does not hold what its manifest says.
        """
        device = torch.device("cuda")
        torch.backends.cudnn.benchmark = True
        classifier, _ = artifact.load(folder, device)
        return cls(classifier, device=device, side=manifest.preprocessing.crop)

    @property
    def name(self) -> str:
        return f"torch {str(self._dtype).removeprefix('torch.')} on {self._device.type}"

    @property
    def num_lanes(self) -> int:
        return 1

    @property
    def max_batch(self) -> int:
        return self._buckets[-1]

    def infer(self, lane: int, pixels: np.ndarray) -> np.ndarray:
        """Pixels, uint8 or float32 (N, S, S, 3) in 0–255, N ≤ ``max_batch`` → logits, float32 (N, num_classes)."""
        assert lane == 0
        size = bucket_for(len(pixels), self._buckets)
        with self._lock, torch.inference_mode():
            if pixels.dtype == np.uint8 and size in self._graphs:
                return self._replay(self._graphs[size], pixels)
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
            return self._forward(batch).cpu().numpy()

    def close(self) -> None:
        self._graphs.clear()

    def _forward(self, pixels: Tensor) -> Tensor:
        # Normalised in fp32, then halved: the pixels' own rounding stays the smaller error.
        normalised = self._classifier.normalize(pixels.permute(0, 3, 1, 2))
        return self._classifier.network(normalised.to(self._dtype)).float()

    def _replay(self, captured: _Graph, pixels: np.ndarray) -> np.ndarray:
        captured.pixels[: len(pixels)].copy_(torch.from_numpy(np.ascontiguousarray(pixels)))
        captured.graph.replay()
        # cpu() waits for the replay.
        return captured.logits[: len(pixels)].cpu().numpy()

    def _capture(self, size: int, side: int) -> _Graph:
        pixels = torch.zeros(size, side, side, 3, dtype=torch.uint8, device=self._device)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        # cuDNN looks for its fastest algorithms in the first runs, which may not be captured.
        with torch.inference_mode(), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._forward(pixels)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            logits = self._forward(pixels)
        return _Graph(graph, pixels, logits)


def _choose_dtype(classifier: Classifier, device: torch.device, side: int) -> torch.dtype:
    """Half precision where there is a GPU and the network stays finite in it; else single."""
    if device.type != "cuda":
        return torch.float32
    generator = torch.Generator(device="cpu").manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=generator).to(device)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.float16):
        logits = classifier(noise)
    return torch.float16 if bool(torch.isfinite(logits).all()) else torch.float32
