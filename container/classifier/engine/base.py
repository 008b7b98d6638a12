"""The engine protocol, the names of the files that engines read, and the precisions found safe for a model.

Engines take pixels as uint8 (N, S, S, 3), as the decoder returns them, or as float32 of the same range; permutation and
normalization are part of the graph. Logits are float32 (N, num_classes). This module imports no torch.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from classifier.host import cpu_has_bf16, cpu_has_int8
from classifier.vision.manifest import read_document

GRAPH_FILE = "openvino.xml"
QUANTIZED_FILE = "openvino_int8.xml"
CHOICE_FILE = "engine.json"
# One batch that OpenVINO's stream runs and one that it takes next; otherwise its core idles while threads hand over the
# next (ResNet-18 in int8, two cores, eight clients: idle for 7 % of the time with one slot, 1 % with two).
SLOTS_PER_STREAM = 2
EnginePrecision = Literal["f32", "bf16", "int8"]


class Engine(Protocol):
    """A loaded model that runs batches of at most ``max_batch`` photos, up to ``num_slots`` of them concurrently."""

    @property
    def name(self) -> str:
        """The backend and its precision, for reports."""
        ...

    @property
    def num_slots(self) -> int:
        """Number of batches that may run at once, each with a slot number of its own."""
        ...

    @property
    def max_batch(self) -> int:
        """Largest number of photos in a batch."""
        ...

    def infer(self, slot: int, pixels: np.ndarray) -> np.ndarray:
        """Run one batch.

        Args:
            slot: 0 to ``num_slots`` - 1; no two threads may use the same slot at once.
            pixels: uint8 or float32 (N, S, S, 3) in 0–255.

        Returns:
            Logits, float32 (N, num_classes).
        """
        ...

    def close(self) -> None:
        """Release the engine's memory; no batch may be running."""
        ...


class EngineChoice(BaseModel):
    """The precisions that ``train`` found safe for a model, and the graphs that belong to it.

    A precision that could not be measured, on a CPU without it, does not count as safe, unless it was asked for. The
    file has no timings, so equal weights give equal bytes. It is written last: a graph that it does not list is not
    complete.

    Attributes:
        sha256: the hashes of the graphs' files, by name.
    """

    model_config = ConfigDict(frozen=True)

    bf16: bool = False
    int8: bool = False
    sha256: Mapping[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "EngineChoice":
        """Read the choice from an artifact's folder; the default where the file is missing.

        Raises:
            ArtifactError: the file is malformed.
        """
        try:
            return read_document(cls, folder / CHOICE_FILE)
        except FileNotFoundError:
            return cls()

    def write(self, folder: Path) -> None:
        """Write the choice into an artifact's folder, replacing an existing one."""
        unfinished = folder / f".{CHOICE_FILE}.part"
        unfinished.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        unfinished.replace(folder / CHOICE_FILE)

    def precision(self) -> EnginePrecision:
        """The fastest precision that is safe for the model and that this CPU supports natively."""
        if self.int8 and cpu_has_int8():
            return "int8"
        return "bf16" if self.bf16 and cpu_has_bf16() else "f32"


def file_hash(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_graphs(folder: Path) -> None:
    """Remove an artifact's graphs, because its weights change; first the file without which they are not used."""
    for name in (CHOICE_FILE, GRAPH_FILE, QUANTIZED_FILE):
        (folder / name).unlink(missing_ok=True)
        (folder / name).with_suffix(".bin").unlink(missing_ok=True)
