"""The line that the server logs when it is ready: what it serves, with what, and within which limits."""

import os
import platform
import sys
from importlib import metadata
from typing import Any

import classifier
from classifier.host import num_cores
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.vision.manifest import ModelManifest

NUM_LABELS = 5
_PACKAGES = ("openvino", "numpy", "pillow", "flask", "gunicorn")


def describe_server(settings: ServerSettings, predictor: Predictor | None = None) -> dict[str, Any]:
    """Return the fields of the start line.

    Args:
        settings: the server's.
        predictor: the model; None where models are loaded on request.
    """
    return {
        "message": "ready",
        "pid": os.getpid(),
        "port": settings.port,
        "model": _describe_model(predictor.manifest) if predictor else None,
        "engine": predictor.engine_name if predictor else None,
        "cores": num_cores(),
        "threads": settings.max_requests,
        "versions": _versions(),
        "settings": settings.model_dump(exclude={"port"}),
    }


def _describe_model(manifest: ModelManifest) -> dict[str, Any]:
    return {
        "architecture": manifest.architecture,
        "image_size": manifest.preprocessing.crop,
        "num_classes": len(manifest.classes),
        "first_labels": [one.label for one in manifest.classes[:NUM_LABELS]],
        "data_fingerprint": manifest.data_fingerprint or None,
    }


def _versions() -> dict[str, str]:
    # torch is imported only where the engine needs it.
    packages = [*_PACKAGES, *(["torch"] if "torch" in sys.modules else [])]
    return {
        "classifier": classifier.__version__,
        "python": platform.python_version(),
        **{name: version for name in packages if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    """The version of a package; None where it is not installed, as OpenVINO where only GPUs serve."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
