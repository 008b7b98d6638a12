"""Results of a tuning job: the table, the page and the best hyperparameters in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from launch.tuning.page import write_page
from launch.tuning.spec import TuningSpec
from launch.tuning.trials import Trial, best_trial, write_best, write_csv

BEST = "best_hyperparameters.json"


def report_results(folder: Path, spec: TuningSpec, fixed: Mapping[str, str], trials: Sequence[Trial]) -> Trial | None:
    """Write the results, print the best trial and the files, and return the best trial, if one has completed."""
    best, written = write_results(folder, spec, fixed, trials)
    if best is not None:
        parameters = " ".join(f"{name}={value}" for name, value in best.parameters.items())
        print(f"best        {spec.objective}={best.objective:.4f} by {best.name}: {parameters}", flush=True)
    for path in written:
        print(f"wrote       {display_path(path)}", flush=True)
    return best


def write_results(
    folder: Path, spec: TuningSpec, fixed: Mapping[str, str], trials: Sequence[Trial]
) -> tuple[Trial | None, list[Path]]:
    """Write the results.

    Args:
        fixed: the hyperparameters that all trials share.

    Returns:
        The best trial, if one has completed, and the files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = spec.ranges.names
    # The API returns a trial's parameters in an order of its own.
    ordered = [replace(trial, parameters=_in_order(trial.parameters, names)) for trial in trials]
    best = best_trial(ordered, spec.metric)
    write_csv(folder / "trials.csv", ordered, names)
    write_page(folder / "tuning.html", spec.name, spec.metric, spec.ranges.parameters, ordered)
    written = [folder / "trials.csv", folder / "tuning.html"]
    if best:
        write_best(folder / BEST, best, fixed)
        written.append(folder / BEST)
    return best, written


def display_path(path: Path) -> Path:
    """Return a path relative to the working directory if it is below it."""
    current = Path.cwd()
    return path.relative_to(current) if path.is_relative_to(current) else path


def _in_order(parameters: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: parameters[name] for name in names if name in parameters}
