"""The command line → what is tuned, and what stays as it is."""

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
from dataset.sample_data import write_digits
from launch.cli import read_hyperparameters
from launch.training.options import spec_of
from launch.training.request import TrainingSpec
from launch.tuning.ranges import canonical, read_ranges
from launch.tuning.spec import TuningSpec, check

LOCAL_TEST = Path(__file__).resolve().parents[3] / "local_test"
SAMPLE_HYPERPARAMETERS = LOCAL_TEST / "sample_hyperparameters.json"
RESULTS = LOCAL_TEST / "tuning"
_MAX_NAME = 18  # characters, which leave room for the time


def takes_sample(options: argparse.Namespace) -> bool:
    """Whether the trials train on the handwritten digits."""
    return options.local and options.data is None and not options.channel


def fixed_hyperparameters(options: argparse.Namespace) -> dict[str, str]:
    """A file's, then those on the command line.

    Raises:
        ConfigError: the file can't be read, or a text is not KEY=VALUE.
    """
    return read_hyperparameters(options.hyperparameters, options.hyperparameter)


def results_folder(options: argparse.Namespace, spec: TuningSpec) -> Path:
    """Where the table, the page and, on this machine, the study and the artifacts go.

    Raises:
        ConfigError: --output is not a folder, with --local.
    """
    if options.local and (options.output or "").startswith("s3://"):
        raise ConfigError(f"--output {options.output}: with --local it has to be a folder")
    return options.results or (Path(options.output) if options.local and options.output else RESULTS / spec.name)


def tuning_spec(options: argparse.Namespace, fixed: dict[str, str]) -> TuningSpec:
    """What the command line asks for; ``fixed`` gets the digits' own settings where they are what is trained on.

    Raises:
        ConfigError: the ranges file or a setting is not as it should be.
    """
    ranges = read_ranges(options.ranges, fixed)
    if takes_sample(options):
        given = {canonical(name) for name in (*fixed, *ranges.names)}
        sample = read_hyperparameters(SAMPLE_HYPERPARAMETERS, [])
        fixed.update({name: value for name, value in sample.items() if name not in given})
    spec = TuningSpec(
        name=options.name or _name(options),
        ranges=ranges,
        objective=options.objective,
        strategy=options.strategy,
        jobs=options.jobs,
        parallel=options.parallel,
        early_stopping=options.early_stopping,
        warm_start=tuple(options.warm_start),
        transfer=options.transfer,
        target=options.target,
        max_runtime_s=options.max_runtime,
        no_improvement=options.no_improvement,
        seed=options.seed,
    )
    check(spec)
    return spec


def _name(options: argparse.Namespace) -> str:
    """After the ranges file or, when that is called ranges, its folder; on AWS with the time, to be new."""
    file: Path = options.ranges.resolve()
    words = re.findall("[a-zA-Z0-9]+", file.parent.name if file.stem == "ranges" else file.stem)
    name = "-".join(words)[:_MAX_NAME].rstrip("-") or "tuning"
    return name if options.local else f"{name}-{datetime.now(UTC):%y%m%d-%H%M%S}"


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
