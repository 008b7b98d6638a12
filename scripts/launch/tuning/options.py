"""Tuning options of the command line, resolved into a tuning specification and the training that its trials share."""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from classifier.errors import ConfigError
from dataset.sample_data import write_digits
from launch.terminal import read_hyperparameters
from launch.training.options import TrainingOptions, training_spec
from launch.training.request import TrainingSpec
from launch.tuning.ranges import Ranges, canonical
from launch.tuning.spec import TuningSpec

LOCAL_TEST = Path(__file__).resolve().parents[3] / "local_test"
SAMPLE_DATA = LOCAL_TEST / "sample_data"
SAMPLE_HYPERPARAMETERS = LOCAL_TEST / "sample_hyperparameters.json"
RESULTS = LOCAL_TEST / "tuning"
_MAX_NAME = 18  # characters, which leave room for the time


def uses_sample(training: TrainingOptions) -> bool:
    """Whether the trials train on the sample data, the handwritten digits."""
    return training.platform.local and training.data is None and not training.channels


def fixed_hyperparameters(given: Mapping[str, str], ranges: Ranges, training: TrainingOptions) -> dict[str, str]:
    """Return the hyperparameters that all trials share: the given ones, with the sample's defaults if it is used."""
    if not uses_sample(training):
        return dict(given)
    names = {canonical(name) for name in (*given, *ranges.names)}
    sample = read_hyperparameters(SAMPLE_HYPERPARAMETERS, [])
    return {**given, **{name: value for name, value in sample.items() if name not in names}}


def default_name(ranges: Path, *, local: bool) -> str:
    """Return a tuning job's name: the ranges file's, or its folder's if it is called ranges; on AWS with the time."""
    file = ranges.resolve()
    words = re.findall("[a-zA-Z0-9]+", file.parent.name if file.stem == "ranges" else file.stem)
    name = "-".join(words)[:_MAX_NAME].rstrip("-") or "tuning"
    return name if local else f"{name}-{datetime.now(UTC):%y%m%d-%H%M%S}"


def results_folder(results: Path | None, training: TrainingOptions, name: str) -> Path:
    """Return the folder of the table, the page and, for a local job, the study and the artifacts.

    Raises:
        ConfigError: ``--output`` of a local job is not a folder.
    """
    local, output = training.platform.local, training.output
    if local and (output or "").startswith("s3://"):
        raise ConfigError(f"--output {output}: with --local it has to be a folder")
    return results or (Path(output) if local and output else RESULTS / name)


def shared_training(
    training: TrainingOptions, fixed: Mapping[str, str], folder: Path, spec: TuningSpec
) -> TrainingSpec:
    """Return the training that all trials share.

    Args:
        folder: the results folder, below which local trials leave their artifacts.

    Raises:
        UserError: an image, a role, a channel or a place is missing, or the objective needs a channel that is.
    """
    if uses_sample(training):
        training = replace(training, data=str(_sample_data()))
    if training.platform.local:
        training = replace(training, output=str(folder / "artifacts"))
    shared = training_spec(replace(training, name="trial"), fixed)
    if spec.objective.startswith("test:") and "test" not in shared.channels:
        raise ConfigError(f"--objective {spec.objective} needs a channel 'test', and there is none: add one")
    # With a common place for checkpoints, trials would resume from one another's.
    return replace(shared, checkpoints=None)


def _sample_data() -> Path:
    if not SAMPLE_DATA.is_dir():
        print(f"writing 1,797 handwritten digits to {SAMPLE_DATA}", file=sys.stderr, flush=True)
        write_digits(SAMPLE_DATA)
    return SAMPLE_DATA
