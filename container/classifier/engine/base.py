"""A batch of pixels → logits: OpenVINO on a CPU, torch on a GPU, behind one shape. Imports no torch without need.

Pixels come as uint8 (N, S, S, 3), as the decoder leaves them, or as float32 of the same range; the permutation and the
normalisation are inside the graph. Logits leave as float32 (N, num_classes).
"""

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from classifier.errors import ArtifactError
from classifier.host import cpu_has_bf16, cpu_has_int8

GRAPH_FILE = "openvino.xml"
QUANTIZED_FILE = "openvino_int8.xml"
CHOICE_FILE = "engine.json"
Precision = Literal["f32", "bf16", "int8"]


class Engine(Protocol):
    """What the batches run on.

    It takes up to ``num_lanes`` batches at once, each on its own lane; a batch holds at most ``max_batch`` photos.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_lanes(self) -> int: ...

    @property
    def max_batch(self) -> int: ...

    def infer(self, lane: int, pixels: np.ndarray) -> np.ndarray:
        """Pixels, uint8 or float32 (N, S, S, 3) in 0–255 → logits, float32 (N, num_classes)."""
        ...

    def close(self) -> None: ...


class EngineChoice(BaseModel):
    """Which precisions ``train`` found safe for this model, on photos. Holds no timing: same weights, same bytes.

    bf16 that could not be tried, on a CPU without it, counts as safe; int8 must have been tried.
    """

    model_config = ConfigDict(frozen=True)

    bf16: bool = True
    int8: bool = False

    @classmethod
    def read(cls, folder: Path) -> "EngineChoice":
        """The choice in an artifact's folder, or the default where it holds none.

        Raises:
            ArtifactError: the file does not say what it must.
        """
        path = folder / CHOICE_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except ValidationError as error:
            raise ArtifactError(f"{path}: {error.errors()[0]['msg']}") from None

    def write(self, folder: Path) -> None:
        (folder / CHOICE_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def precision(self) -> Precision:
        """The fastest that is safe for the model and that this CPU computes in itself."""
        if self.int8 and cpu_has_int8():
            return "int8"
        return "bf16" if self.bf16 and cpu_has_bf16() else "f32"
