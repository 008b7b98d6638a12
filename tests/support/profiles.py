"""Profiles with chosen values, smdebug's reader of profiler files, and AWS's definitions of rules."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classifier.contract.hyperparameters import Hyperparameters
from classifier.profiling.profile import Profile
from classifier.profiling.steps import MODES, PHASES, StepTable
from classifier.profiling.system import SystemSample

START_S = 1_795_000_020.0


def sample(number: int = 0, **values: Any) -> SystemSample:
    """Return sample ``number`` (two per second) of a machine with two half-busy cores; ``values`` replace fields."""
    cores, iowait = values.pop("cores", (50, 50)), values.pop("iowait", (0, 0))
    return SystemSample(
        time_s=START_S + number / 2,
        cores=np.array(cores, dtype=np.float32),
        iowait=np.array(iowait, dtype=np.float32),
        memory=values.pop("memory", 20.0),
        **values,
    )


def samples(num: int, **values: Any) -> Sequence[SystemSample]:
    return [sample(number, **values) for number in range(num)]


def steps(seconds: Sequence[float], *, mode: str = "train", data: Sequence[float] | None = None) -> StepTable:
    """Return steps of the given durations; all time but that of the phase ``data`` is spent in the forward pass."""
    count = len(seconds)
    phases = np.zeros((count, len(PHASES)))
    phases[:, PHASES.index("data")] = data if data is not None else 0
    phases[:, PHASES.index("forward")] = np.array(seconds) - phases[:, PHASES.index("data")]
    return StepTable(
        mode=np.full(count, MODES.index(mode)),  # pyright: ignore[reportArgumentType]
        epoch=np.ones(count, dtype=int),
        number=np.arange(count),
        start_s=START_S + np.cumsum(seconds) - seconds,
        seconds=np.array(seconds, dtype=float),
        phases=phases,
        is_usual=np.ones(count, dtype=bool),
    )


def profile(**values: Any) -> Profile:
    """Return a minute of healthy training on a machine without a GPU; ``values`` replace fields."""
    table = values.get("steps", steps([0.5] * 120))
    healthy = Profile(
        parameters=Hyperparameters(),
        began_s=START_S - 10,
        first_step_s=START_S,
        ended_s=START_S + 61,
        samples=samples(120),
        steps=table,
        passes_s={"train": float(table.of("train").seconds.sum()), "validation": 0.0, "test": 0.0},
        checkpoint_s=0.5,
        operators=(),
        num_images=120 * 32,
        num_workers=2,
    )
    return replace(healthy, **values)


def read_frames(folder: Path) -> Any:
    """Return smdebug's ``PandasFrame`` of a profiler's folder."""
    with warnings.catch_warnings():
        # smdebug was written for an older Python and uses deprecated features.
        warnings.simplefilter("ignore")
        from smdebug.profiler.analysis.utils.profiler_data_to_pandas import PandasFrame  # noqa: PLC0415

        return PandasFrame(str(folder))


def aws_rules() -> dict[str, Any]:
    """Return AWS's profiler rules by name; an instance has the rule's defaults in ``rule_parameters``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from smdebug_rulesconfig.profiler_rules import rules  # noqa: PLC0415

    base = rules.ProfilerRuleBase
    return {
        name: value
        for name, value in vars(rules).items()
        if isinstance(value, type) and issubclass(value, base) and value not in (base, rules.ProfilerReport)
    }
