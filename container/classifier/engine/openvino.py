"""OpenVINO on the CPU's cores."""

import threading
from functools import cache

import numpy as np
import openvino

from classifier.engine.base import SLOTS_PER_STREAM, EnginePrecision
from classifier.host import num_cores

# With one stream per core, larger batches only make the first photo wait for the last (ResNet-18 in int8, two cores,
# eight clients: 277 photos a second one by one, 236 in batches of up to four).
MAX_BATCH = 1


class OpenVinoEngine:
    """A graph on the CPU, by default with one single-threaded stream per core.

    Two photos on two cores wait for each other less often than two threads that share one photo.
    """

    def __init__(self, model: openvino.Model, *, precision: EnginePrecision, num_streams: int) -> None:
        # A fixed shape takes 5 % less CPU time than looking the shape up at every layer.
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
        self._num_slots = num_streams * SLOTS_PER_STREAM
        self._requests = self._compile(self._model)
        self._float_requests: list[openvino.InferRequest] | None = None
        self._float_lock = threading.Lock()

    @property
    def name(self) -> str:
        """``OpenVINO`` and the precision."""
        return f"OpenVINO {self._precision}"

    @property
    def num_slots(self) -> int:
        """Number of concurrent inference requests."""
        return self._num_slots

    @property
    def max_batch(self) -> int:
        """Largest number of photos in a batch."""
        return MAX_BATCH

    def infer(self, slot: int, pixels: np.ndarray) -> np.ndarray:
        """Run one batch: uint8 or float32 (N, S, S, 3) in 0–255 to logits, float32 (N, num_classes)."""
        requests = self._requests if pixels.dtype == np.uint8 else self._requests_for_floats()
        return np.concatenate([_infer(requests[slot], photo[None]) for photo in pixels])

    def close(self) -> None:
        """Release the compiled graphs."""
        self._requests = []
        self._float_requests = None

    def _compile(self, model: openvino.Model) -> list[openvino.InferRequest]:
        compiled = openvino_core().compile_model(model, "CPU", self._config)
        requests = [compiled.create_infer_request() for _ in range(self._num_slots)]
        # Each runs once here, on one thread: at its first inference OpenVINO's Python layer fills static tables and
        # releases the GIL meanwhile, so two threads that both run their first inference deadlock.
        for request in requests:
            request.infer(np.zeros(list(model.input().shape), model.input().element_type.to_dtype()))
        return requests

    def _requests_for_floats(self) -> list[openvino.InferRequest]:
        # The same graph with another input type. Compiled when the first float tensor arrives, since few ever do.
        with self._float_lock:
            if self._float_requests is None:
                model = self._model.clone()
                model.input().get_node().set_element_type(openvino.Type.f32)
                model.validate_nodes_and_infer_types()
                self._float_requests = self._compile(model)
            return self._float_requests


def compile_graph(
    model: openvino.Model, precision: EnginePrecision, *, num_streams: int | None = None
) -> OpenVinoEngine:
    """Compile a graph for the CPU, by default with one stream for each core that this process may use."""
    return OpenVinoEngine(model, precision=precision, num_streams=num_streams or num_cores())


@cache
def openvino_core() -> openvino.Core:
    """The process's OpenVINO runtime."""
    return openvino.Core()


def _infer(request: openvino.InferRequest, pixels: np.ndarray) -> np.ndarray:
    request.infer(pixels, share_inputs=True)
    return request.get_output_tensor().data.astype(np.float32)
