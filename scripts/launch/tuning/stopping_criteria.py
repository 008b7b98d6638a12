"""When a tuning job on this machine is over: the platform's completion criteria."""

from collections.abc import Sequence

from launch.tuning.spec import TuningSpec
from launch.tuning.trials import Trial, best_trial

_MAX_ATTEMPTS = 5  # as on the platform, where a tuning job fails when no trial succeeds in so many


def reason_to_end(spec: TuningSpec, trials: Sequence[Trial], seconds: float) -> str | None:
    """Why no more trials are needed, if so. ``seconds`` are those of this run."""
    done = [trial for trial in trials if not trial.is_running]
    best = best_trial(done, spec.metric)
    if len(done) >= spec.num_jobs():
        return f"all {spec.num_jobs()} trials are done"
    if best is None and len(done) >= _MAX_ATTEMPTS and all(trial.status == "Failed" for trial in done):
        return f"no trial succeeded in {len(done)} attempts"
    if best is not None and best.objective is not None:
        if spec.target is not None and not spec.metric.is_better(spec.target, best.objective):
            return f"the target {spec.target:g} is reached"
        since = sum(trial is not best and _ended_after(trial, best) for trial in done)
        if spec.no_improvement is not None and since >= spec.no_improvement:
            return f"{since} trials brought nothing better"
    if spec.max_runtime_s is not None and seconds >= spec.max_runtime_s:
        return f"{spec.max_runtime_s} seconds are over"
    return None


def _ended_after(trial: Trial, best: Trial) -> bool:
    return trial.ended is not None and best.ended is not None and trial.ended >= best.ended
