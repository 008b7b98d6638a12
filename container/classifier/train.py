"""The program ``train``: from the platform's files to an artifact, reports and an exit code.

Exit codes: 0 completed, or stopped on request; 1 the user can fix it; 2 a bug. The reason is in ``output/failure``,
message first, of which the platform shows 1,024 characters.

On a host with several GPUs, or with several hosts, the platform's process starts the ranks and watches them
(:mod:`classifier.ranks`); each is this program as well, with torchrun's environment variables.

Torch takes seconds to import, so everything that can fail without it is checked before.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.callbacks import Callback, CallbackList
from classifier.contract.config import TrainingConfig, read_training_config
from classifier.contract.driver import check_driver, read_host
from classifier.contract.hyperparameters import Hyperparameters, describe
from classifier.contract.paths import Paths
from classifier.debugging import open_debugger
from classifier.errors import DataError, Stopped, describe_failure, failure_as_warning
from classifier.pipes import has_lost_reader, leave_closed_pipe
from classifier.ranks.processes import FAILURE_FILE as RANK_FAILURE_FILE
from classifier.ranks.processes import count_ranks, rank_number
from classifier.ranks.rendezvous import Failure
from classifier.ranks.supervisor import Supervisor
from classifier.reporting.summary import (
    FAILURE_FILE,
    HISTORY_FILE,
    PAGE_FILE,
    SUMMARY_FILE,
    Summary,
    changed,
    display_names,
    has_record,
)
from classifier.signals import end_with_supervisor
from classifier.training.console import Console, Progress, SilentConsole, StopSignal

if TYPE_CHECKING:
    from classifier.reporting.results import Predictions
    from classifier.training.epochs import TrainingResult


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``train`` and return its exit code."""
    options = _parse(arguments)
    paths = Paths.from_environment()
    try:
        if options.describe or options.models:
            print(describe() if options.describe else _list_models(), flush=True)
            return 0
        return _run_job(paths) if rank_number() is None else _run_rank(paths)
    except BrokenPipeError:
        if not has_lost_reader():
            raise
        if not (options.describe or options.models):
            _write_failure(paths, "standard output was closed")
        return leave_closed_pipe()


def _run_job(paths: Paths) -> int:
    console, stop = Console(), StopSignal()
    stop.listen()
    code, reason = _run(paths, console, stop)
    if reason:
        _write_failure(paths, reason)
    # Rank 0 writes that of a job in several ranks, so that the other hosts don't end before.
    if has_record(paths.output_data) and (reason or not (paths.output_data / PAGE_FILE).exists()):
        _write_page(paths, console)
    if reason:
        print(f"train failed: {reason}", file=sys.stderr, flush=True)
    return code


def _run_rank(paths: Paths) -> int:
    """Run one of several ranks. The supervisor writes the failure; of a job that fails, the report, too."""
    end_with_supervisor()
    console, stop = SilentConsole() if rank_number() else Console(), StopSignal()
    stop.listen()
    code, reason = _attempt(lambda: _run_here(read_training_config(paths), paths, console, stop), console)
    if reason:
        _write_failure(paths, reason)
    elif not rank_number() and has_record(paths.output_data):
        _write_page(paths, console)
    return code


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train", description="Fine-tune an image classifier with the configuration and the channels in /opt/ml."
    )
    parser.add_argument("--describe", action="store_true", help="print the table of hyperparameters and exit")
    parser.add_argument("--models", action="store_true", help="print the names of all models and exit")
    return parser.parse_args(arguments)


def _list_models() -> str:
    from classifier.vision.models import architectures  # noqa: PLC0415

    return "\n".join(architectures())


def _run(paths: Paths, console: Console, stop: StopSignal) -> tuple[int, str]:
    """Run the job, here or in several ranks, and return the exit code and the reason of a failure."""
    return _attempt(lambda: _run_here_or_in_ranks(paths, console, stop), console)


def _attempt(run: Callable[[], Failure | None], console: Console) -> tuple[int, str]:
    """Return the exit code of what runs, and the reason of a failure."""
    try:
        if failure := run():
            return failure.code, failure.reason
    except Stopped as stopped:
        console.log(f"stopped     by {stopped} before the first step: there is no model")
    except Exception as error:
        if isinstance(error, BrokenPipeError) and has_lost_reader():
            raise
        return describe_failure(error)
    return 0, ""


def _run_here_or_in_ranks(paths: Paths, console: Console, stop: StopSignal) -> Failure | None:
    _remove_earlier_outputs(paths)
    config = read_training_config(paths)
    num_ranks = count_ranks(config.hyperparameters.ranks_per_host)
    if num_ranks * len(config.cluster.hosts) > 1:
        return Supervisor(config.cluster, num_ranks, stop, console.log).run(lambda: _check(config, paths))
    _check(config, paths)
    return _run_here(config, paths, console, stop)


def _run_here(config: TrainingConfig, paths: Paths, console: Console, stop: StopSignal) -> None:
    """Train in this process. Only rank 0 records and writes."""
    if rank_number():
        _train_with_others(config, paths, Progress(console, stop))
        return
    from classifier.profiling.profiler import profiled  # noqa: PLC0415

    with profiled(config, paths, console) as callbacks:
        _train(config, paths, Progress(console, stop), callbacks)


def _check(config: TrainingConfig, paths: Paths) -> None:
    """Check the host's driver and the channels' folders.

    Raises:
        ConfigError: there is no driver for the host's GPU, or an old one.
        DataError: a channel has no folder.
    """
    check_driver(read_host(config.cluster.current_instance_type), "training")
    for name in config.channels:
        folder = paths.channel(name)
        if not folder.is_dir():
            raise DataError(f"channel {name!r}: its folder {folder} does not exist")


def _remove_earlier_outputs(paths: Paths) -> None:
    names = (SUMMARY_FILE, HISTORY_FILE, FAILURE_FILE, PAGE_FILE)
    for path in (paths.failure, *(paths.output_data / name for name in names)):
        path.unlink(missing_ok=True)


def _train(config: TrainingConfig, paths: Paths, progress: Progress, callbacks: Sequence[Callback]) -> None:
    """Train, convert the model for serving on a CPU, and write what was recorded. Only the first can fail the job."""
    started_s, console = time.time(), progress.console
    from classifier.reporting.recording import Recorder  # noqa: PLC0415 - these import torch
    from classifier.training.data import truncation_policy  # noqa: PLC0415
    from classifier.training.fit import convert_for_cpu, fit  # noqa: PLC0415

    recorder = Recorder(paths.output_data, paths.tensorboard, console.warn)
    debugger = open_debugger(config, paths, console, callbacks)
    callback = CallbackList([recorder, *callbacks, *([debugger] if debugger else [])], console.warn)
    with truncation_policy(config.hyperparameters):
        result = fit(config, paths, progress, callback)
        engines = convert_for_cpu(result, paths, progress)
        with failure_as_warning(console.warn, "the reports are incomplete"):
            recorder.finish(
                _summarize(config, result, started_s),
                confusion=None if result.evaluation is None else result.evaluation.confusion.numpy(),
                predictions=_predictions(result),
                photos=result.data.test if result.judged_on == "test" else result.data.validation,
                engines=engines,
            )
    console.log(f"artifact    {paths.model}")


def _train_with_others(config: TrainingConfig, paths: Paths, progress: Progress) -> None:
    """Take part in a training of which rank 0 keeps the results."""
    from classifier.training.data import truncation_policy  # noqa: PLC0415 - these import torch
    from classifier.training.fit import fit  # noqa: PLC0415

    with truncation_policy(config.hyperparameters):
        fit(config, paths, progress, CallbackList([], progress.console.warn))


def _predictions(result: "TrainingResult") -> "Predictions | None":
    """The calibrated predictions for the photos of ``result.judged_on``."""
    from classifier.reporting.results import Predictions  # noqa: PLC0415 - imports Pillow

    if result.evaluation is None:
        return None
    logits, labels = result.evaluation.logits.numpy(), result.evaluation.labels.numpy()
    return Predictions.from_logits(logits, labels, result.manifest.temperature)


def _summarize(config: TrainingConfig, result: "TrainingResult", started_s: float) -> Summary:
    manifest = result.manifest
    return Summary(
        job_name=config.job_name,
        model=manifest.architecture,
        pretrained=result.source,
        channels=tuple(config.channels),
        classes=display_names(manifest.classes),
        photos=result.data.counts,
        data_fingerprint=manifest.data_fingerprint,
        hyperparameters=manifest.hyperparameters,
        changed=changed(manifest.hyperparameters, Hyperparameters().model_dump()),
        device=result.device,
        versions=manifest.versions,
        started=f"{datetime.fromtimestamp(started_s, UTC):%Y-%m-%dT%H:%M:%SZ}",
        duration_s=round(time.time() - started_s, 1),
        num_epochs=result.num_epochs,
        best_epoch=result.best.number if result.best else None,
        judged_on=result.judged_on,
        metrics=manifest.metrics,
        calibration=manifest.calibration,
        calibration_errors=result.calibration_errors,
        ended=result.ended,
    )


def _write_failure(paths: Paths, reason: str) -> None:
    """Write ``output/failure`` and the report's, or as a rank the file that the supervisor reads."""
    path = Path(os.environ.get(RANK_FAILURE_FILE, paths.failure))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason + "\n", encoding="utf-8")
        if path == paths.failure and has_record(paths.output_data):
            (paths.output_data / FAILURE_FILE).write_text(reason.partition("\n")[0] + "\n", encoding="utf-8")
    except OSError as error:
        print(f"train: {path} can't be written: {error.strerror}; the reason: {reason}", file=sys.stderr, flush=True)


def _write_page(paths: Paths, console: Console) -> None:
    """Write ``report.html`` last of all, since it shows the other files."""
    console.log(f"reports     {paths.output_data}")
    with failure_as_warning(console.warn, "report.html could not be written"):
        from classifier.reporting.page import write_page  # noqa: PLC0415 - imports plotly

        console.log(f"report      {write_page(paths.output_data)}")


if __name__ == "__main__":
    sys.exit(main())
