"""What a tuning job leaves in its folder: the table, the page, the best hyperparameters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from launch.tuning.page import write_page
from launch.tuning.spec import TuningSpec
from launch.tuning.trials import Trial, best_trial, write_best, write_csv

BEST = "best_hyperparameters.json"


def write_results(
    folder: Path, spec: TuningSpec, static: Mapping[str, str], trials: Sequence[Trial]
) -> tuple[Trial | None, list[Path]]:
    """Returns the best trial, if one has completed, and the files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    names = spec.ranges.names
    # The API's trials have their parameters in an order of its own.
    ordered = [replace(trial, parameters=_in_order(trial.parameters, names)) for trial in trials]
    best = best_trial(ordered, spec.metric)
    write_csv(folder / "trials.csv", ordered, names)
    write_page(folder / "tuning.html", spec.name, spec.metric, spec.ranges.parameters, ordered)
    written = [folder / "trials.csv", folder / "tuning.html"]
    if best:
        write_best(folder / BEST, best, static)
        written.append(folder / BEST)
    return best, written


def _in_order(parameters: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: parameters[name] for name in names if name in parameters}


def tell_results(best: Trial | None, written: Sequence[Path], spec: TuningSpec) -> None:
    """What came out, on standard output."""
    if best is not None:
        parameters = " ".join(f"{name}={value}" for name, value in best.parameters.items())
        print(f"best        {spec.objective}={best.objective:.4f} by {best.name}: {parameters}", flush=True)
    for path in written:
        print(f"wrote       {shown(path)}", flush=True)


def shown(path: Path) -> Path:
    """As a person types it: from here, if it lies here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
