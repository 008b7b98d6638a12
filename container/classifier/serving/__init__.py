"""An artifact and a body → predictions, over HTTP. `serve` composes it; with an OpenVINO model it imports no torch."""

import sys

# OpenVINO reports each import and conversion to its makers, over the network and from a process of its own. Where the
# reporter can't be imported, it does without.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
