"""Modules that must not import torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "classifier.contract.config",
        "classifier.contract.metrics",
        "classifier.vision.images",
        "classifier.vision.preprocessing",
        "classifier.reporting.page",
        "classifier.reporting.theme",
        "classifier.train",
        "launch.local.opt_ml",
        "dataset.sample_data",
    ],
)
def test_torch_is_not_imported(module: str) -> None:
    program = f"import sys; sys.path.append('scripts'); import {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
