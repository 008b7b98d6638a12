"""A batch of pixels → logits: OpenVINO on a CPU, torch on a GPU, behind one shape. Imports no torch without need.

Pixels come as uint8 (N, S, S, 3), as the decoder leaves them, or as float32 of the same range; the permutation and the
normalisation are inside the graph. Logits leave as float32 (N, num_classes).
"""

import os
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import openvino
from pydantic import BaseModel, ConfigDict, ValidationError

from classifier.errors import ArtifactError
from classifier.vision.card import ModelCard

GRAPH_FILE = "openvino.xml"
QUANTISED_FILE = "openvino_int8.xml"
CHOICE_FILE = "engine.json"
# With a stream a core, larger batches only make the first photo wait for the last (ResNet-18 in int8, two cores, eight
# callers: 277 photos a second one by one, 236 in batches of up to four).
MAX_BATCH = 1
# One that a stream works on and one that it takes next: else its core is idle while threads hand it the next (ResNet-18
# in int8, two cores, eight callers: idle for 7 % of the time with one, 1 % with two).
LANES_A_STREAM = 2

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


class OpenVinoEngine:
    """A graph on the CPU's cores.

    One stream a core, each of one thread, by default: two photos on two cores wait for each other less often than two
    threads that share one photo do.
    """

    def __init__(self, model: openvino.Model, *, precision: Precision, num_streams: int) -> None:
        # Of one fixed shape it takes 5 % less of the CPU than asking for the shape at every layer.
        self._model = model.clone()
        self._model.reshape([MAX_BATCH, *list(model.input().partial_shape)[1:]])
        self._config = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": num_streams,
            "INFERENCE_NUM_THREADS": num_cores(),
            # Threads pinned by two engines, or by two containers of one host, would share a core and leave one idle.
            "ENABLE_CPU_PINNING": False,
        }
        self._precision = precision
        self._num_lanes = num_streams * LANES_A_STREAM
        self._requests = self._compile(self._model)
        self._float_requests: list[openvino.InferRequest] | None = None
        self._float_lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"OpenVINO {self._precision}"

    @property
    def num_lanes(self) -> int:
        return self._num_lanes

    @property
    def max_batch(self) -> int:
        return MAX_BATCH

    def infer(self, lane: int, pixels: np.ndarray) -> np.ndarray:
        requests = self._requests if pixels.dtype == np.uint8 else self._requests_for_floats()
        return np.concatenate([_infer(requests[lane], photo[None]) for photo in pixels])

    def close(self) -> None:
        self._requests = []
        self._float_requests = None

    def _compile(self, model: openvino.Model) -> list[openvino.InferRequest]:
        compiled = _openvino_core().compile_model(model, "CPU", self._config)
        requests = [compiled.create_infer_request() for _ in range(self._num_lanes)]
        # Each runs once here, on one thread: at its first inference OpenVINO's Python layer fills static tables, and
        # lets go of the interpreter's lock meanwhile, so that two threads that both begin wait for each other forever.
        for request in requests:
            request.infer(np.zeros(list(model.input().shape), model.input().element_type.to_dtype()))
        return requests

    def _requests_for_floats(self) -> list[openvino.InferRequest]:
        # The same graph with another type at its door. Compiled when the first float tensor comes, since few ever do.
        with self._float_lock:
            if self._float_requests is None:
                model = self._model.clone()
                model.input().get_node().set_element_type(openvino.Type.f32)
                model.validate_nodes_and_infer_types()
                self._float_requests = self._compile(model)
            return self._float_requests


def _infer(request: openvino.InferRequest, pixels: np.ndarray) -> np.ndarray:
    request.infer(pixels, share_inputs=True)
    return request.get_output_tensor().data.astype(np.float32)


@cache
def _openvino_core() -> openvino.Core:
    return openvino.Core()


def num_cores() -> int:
    """The cores that this process may use: its affinity, and a container's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, round(int(quota) / int(period))))


def cpu_has_bf16() -> bool:
    """Whether this CPU computes in bf16 itself."""
    return "BF16" in _openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def cpu_has_int8() -> bool:
    """Whether this CPU multiplies 8-bit integers without overflow (VNNI)."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def compile_graph(model: openvino.Model, precision: Precision, *, num_streams: int | None = None) -> OpenVinoEngine:
    """A graph (an ``openvino.Model``) → an engine on all the cores that this process may use."""
    return OpenVinoEngine(model, precision=precision, num_streams=num_streams or num_cores())


def open_engine(folder: Path, card: ModelCard) -> Engine:
    """The engine for an artifact on this machine: torch where there is a GPU, OpenVINO where there is none.

    Raises:
        ArtifactError: the folder does not hold what its card says.
    """
    if has_gpu():
        from classifier.serving.cuda import TorchEngine  # noqa: PLC0415 - imports torch

        return TorchEngine.open(folder, card)
    precision = EngineChoice.read(folder).precision()
    return compile_graph(_read_graph(folder, card, precision), precision)


def has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an NVIDIA GPU is there, by its device files: asking torch would import it."""
    return environment.get("CUDA_VISIBLE_DEVICES") != "" and Path("/dev/nvidiactl").exists()


def _read_graph(folder: Path, card: ModelCard, precision: Precision) -> openvino.Model:
    path = folder / (QUANTISED_FILE if precision == "int8" else GRAPH_FILE)
    if precision != "int8" and not path.exists():
        # An artifact of before, or of elsewhere: converted now, which needs torch and a few seconds.
        from classifier.serving.export import graph_of  # noqa: PLC0415 - imports torch

        return graph_of(folder)
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {path.name}, which its {CHOICE_FILE} speaks of")
    if not path.read_bytes().startswith(b"<?xml"):
        # OpenVINO would try it as the file of every other framework that it knows.
        raise ArtifactError(f"{path} is no OpenVINO graph")
    try:
        model = _openvino_core().read_model(path)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: {_last_line(error)}") from None
    _check_graph(model, card, path)
    return model


def _check_graph(model: openvino.Model, card: ModelCard, path: Path) -> None:
    side, num_classes = card.preprocessing.crop, len(card.classes)
    expected = [("input", f"[?,{side},{side},3]"), ("output", f"[?,{num_classes}]")]
    found = [("input", str(model.input().partial_shape)), ("output", str(model.output().partial_shape))]
    for (name, wanted), (_, shape) in zip(expected, found, strict=True):
        if shape != wanted:
            raise ArtifactError(f"{path}: its {name} is {shape}, but model.json asks for {wanted}")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unreadable"])[-1]
