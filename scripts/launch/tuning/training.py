"""The command line → the training that all trials share, on this machine or on AWS."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
from launch.requests.training import TrainingSpec
from launch.sample_data import write_digits
from launch.training_job import spec_of
from launch.tuning.setting import takes_sample

SAMPLE_DATA = Path(__file__).resolve().parents[3] / "local_test" / "sample_data"

# What train.py can ask for, and a tuning's trainings can't have.
_NOT_HERE = {"debugger": False, "save_interval": None, "profiler": False, "checkpoints": None}


def shared_training(options: argparse.Namespace, fixed: Mapping[str, str], folder: Path) -> TrainingSpec:
    """``folder`` gets the artifacts of this machine's trials.

    Raises:
        UserError: an image, a role, a channel or a place is missing, or the objective needs a channel that is.
    """
    values = {**vars(options), **_NOT_HERE, "name": "trial"}
    if takes_sample(options):
        values["data"] = str(_sample_data())
    if options.local:
        values["output"] = str(folder / "artifacts")
    training = spec_of(argparse.Namespace(**values), fixed, Hyperparameters.parse(fixed))
    if options.objective.startswith("test:") and "test" not in training.channels:
        raise ConfigError(f"--objective {options.objective} needs a channel 'test', and there is none: add one")
    # All trials would have one place for their checkpoints, and go on from each other's.
    return replace(training, checkpoints=None)


def _sample_data() -> Path:
    if not SAMPLE_DATA.is_dir():
        print(f"writing 1,797 handwritten digits to {SAMPLE_DATA}", file=sys.stderr, flush=True)
        write_digits(SAMPLE_DATA)
    return SAMPLE_DATA
