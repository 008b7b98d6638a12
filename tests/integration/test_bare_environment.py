"""A training, and the engine of GPUs, where OpenVINO, smdebug and the server's packages are not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support.jobs import Platform

# What training and the torch engine do without.
ABSENT = ("openvino", "smdebug", "flask", "gunicorn", "msgspec", "pandas", "requests", "google", "boto3")

PROGRAM = f"""
import sys

class WithoutAbsent:
    def __init__(self, finder):
        self._finder = finder

    def __getattr__(self, name):
        return getattr(self._finder, name)

    def find_spec(self, name, *arguments):
        return None if name.partition(".")[0] in {ABSENT!r} else self._finder.find_spec(name, *arguments)

sys.meta_path[:] = map(WithoutAbsent, sys.meta_path)

from classifier.train import main

assert main([]) == 0

from pathlib import Path
import numpy as np
import torch
from classifier.engine import opening
from classifier.engine.cuda import TorchEngine
from classifier.vision import artifact

classifier, manifest = artifact.load(Path(sys.argv[1]))
assert opening.gpu_memory_needed(Path(sys.argv[1]), manifest) > 0
side = manifest.preprocessing.crop
engine = TorchEngine(classifier, device=torch.device("cpu"), side=side, buckets=(1, 2))
assert engine.infer(0, np.zeros((2, side, side, 3), np.uint8)).shape == (2, 3)
"""


def test_training_and_the_torch_engine_need_no_server_and_no_openvino(platform: Platform, image_folder: Path) -> None:
    platform.lay_out({"train": image_folder}, {"profile": "true", "optimize_for_cpu": "false"})
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(platform.paths.base)}
    command = [sys.executable, "-c", PROGRAM, str(platform.paths.model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
    assert (platform.paths.output_data / "report.html").stat().st_size > 100_000
    profile = json.loads((platform.paths.output_data / "profiler.json").read_text(encoding="utf-8"))
    assert profile["images_per_s"] > 0
