"""Stopping criteria of a local tuning job, the same as the platform's completion criteria."""

from collections.abc import Sequence

from launch.tuning.spec import TuningSpec
from launch.tuning.trials import Trial, best_trial

_MAX_ATTEMPTS = 5  # the platform fails a tuning job whose first 5 trials all fail


def reason_to_end(spec: TuningSpec, trials: Sequence[Trial], seconds: float) -> str | None:
    """Return why no more trials are needed, or None if they are.

    Args:
        trials: all trials so far, the running ones included.
        seconds: duration of the present run.
    """
    ended = [trial for trial in trials if not trial.is_running]
    best = best_trial(ended, spec.metric)
    if len(ended) >= spec.num_jobs():
        return f"all {spec.num_jobs()} trials are done"
    if best is None and len(ended) >= _MAX_ATTEMPTS and all(trial.status == "Failed" for trial in ended):
        return f"no trial succeeded in {len(ended)} attempts"
    if best is not None and best.objective is not None:
        if spec.target is not None and not spec.metric.is_better(spec.target, best.objective):
            return f"the target {spec.target:g} is reached"
        num_since = sum(trial is not best and _ended_after(trial, best) for trial in ended)
        if spec.no_improvement is not None and num_since >= spec.no_improvement:
            return f"no improvement in {num_since} trials"
    if spec.max_runtime_s is not None and seconds >= spec.max_runtime_s:
        return f"the time limit of {spec.max_runtime_s} s is reached"
    return None


def _ended_after(trial: Trial, best: Trial) -> bool:
    return trial.ended is not None and best.ended is not None and trial.ended >= best.ended
