"""HTTP serving of trained models. Imports no torch for a model with an OpenVINO graph."""
