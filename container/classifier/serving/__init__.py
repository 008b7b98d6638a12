"""An artifact and a body → predictions, over HTTP. `serve` composes it; with an OpenVINO model it imports no torch."""
