"""A batch of pixels → logits: OpenVINO on a CPU, torch on a GPU, behind one shape. Imports no torch without need.

Pixels come as uint8 (N, S, S, 3), as the decoder leaves them, or as float32 of the same range; the permutation and the
normalisation are inside the graph. Logits leave as float32 (N, num_classes).
"""

import threading
from functools import cache

import numpy as np
import openvino

from classifier.engine.base import Precision
from classifier.host import num_cores

# With a stream a core, larger batches only make the first photo wait for the last (ResNet-18 in int8, two cores, eight
# callers: 277 photos a second one by one, 236 in batches of up to four).
MAX_BATCH = 1
# One that a stream works on and one that it takes next: else its core is idle while threads hand it the next (ResNet-18
# in int8, two cores, eight callers: idle for 7 % of the time with one, 1 % with two).
LANES_A_STREAM = 2


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


def compile_graph(model: openvino.Model, precision: Precision, *, num_streams: int | None = None) -> OpenVinoEngine:
    """A graph (an ``openvino.Model``) → an engine on all the cores that this process may use."""
    return OpenVinoEngine(model, precision=precision, num_streams=num_streams or num_cores())
