"""The command line → what is tuned, and what stays as it is."""

import argparse
import re
from datetime import UTC, datetime
from pathlib import Path

from classifier.errors import ConfigError
from launch.options import read_hyperparameters
from launch.tuning.parameters import canonical
from launch.tuning.ranges import read_ranges
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
