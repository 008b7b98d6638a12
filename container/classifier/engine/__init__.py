"""Inference engines: OpenVINO on a CPU, torch with CUDA graphs on a GPU; conversion and the choice of precision."""

import sys

# OpenVINO reports each import and conversion to its makers, over the network and from a process of its own. Where the
# reporter can't be imported, it does without.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
