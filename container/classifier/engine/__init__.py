"""Inference engines: OpenVINO on a CPU, torch with CUDA graphs on a GPU; conversion and the choice of precision."""

import sys

# OpenVINO reports every import and conversion to its vendor over the network, from a process of its own. It works
# without the reporter when that can't be imported.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
