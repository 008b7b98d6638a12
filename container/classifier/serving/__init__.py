"""HTTP serving: request bodies in, predictions out. Imports no torch with an OpenVINO model."""
