"""What scripts may import stays light."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "classifier.contract.config",
        "classifier.contract.metrics",
        "classifier.train",
        "launch.local.opt_ml",
        "dataset.sample_data",
    ],
)
def test_no_torch_is_imported_before_it_is_needed(module: str) -> None:
    program = f"import sys; sys.path.append('scripts'); import {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
