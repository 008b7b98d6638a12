"""The program ``train``: what the platform's files say → an artifact, reports, an exit code.

Exit codes: 0 completed, or stopped in time; 1 the user can mend it; 2 our fault. The reason lies in ``output/failure``,
message first, of which the platform shows 1,024 characters.

Torch takes seconds to import, so whatever can go wrong without it is told before.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from classifier.callbacks import Callback, CallbackList
from classifier.contract.config import TrainingConfig, read_training_config
from classifier.contract.driver import check_driver, read_host
from classifier.contract.hyperparameters import Hyperparameters, describe
from classifier.contract.paths import Paths
from classifier.debugging import open_debugger
from classifier.errors import ConfigError, Stopped, UserError
from classifier.reporting.summary import FAILURE_FILE, HISTORY_FILE, PAGE_FILE, SUMMARY_FILE, has_record
from classifier.training.console import Console, StopSignal, Watch

if TYPE_CHECKING:
    from classifier.engine.selection import EngineReport
    from classifier.reporting.recording import Record
    from classifier.reporting.summary import Summary
    from classifier.training.epochs import Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``train`` and return its exit code."""
    options = _parse(arguments)
    if options.describe:
        print(describe())
        return 0
    if options.models:
        return _list_models()
    paths, console, stop = Paths.from_environment(), Console(), StopSignal()
    stop.listen()
    code, reason = _run(paths, console, stop)
    if reason:
        _record_failure(paths, reason)
    if has_record(paths.output_data):
        _write_page(paths, console)
    if reason:
        print(f"train failed: {reason}", file=sys.stderr, flush=True)
    return code


def _run(paths: Paths, console: Console, stop: StopSignal) -> tuple[int, str]:
    """The exit code, and why the training failed."""
    try:
        _forget_earlier_run(paths)
        config = read_training_config(paths)
        check_driver(read_host(config.cluster.current_instance_type), "training")
        from classifier.profiling.profiler import profiled  # noqa: PLC0415

        with profiled(config, paths, console) as callbacks:
            _train(config, paths, console, stop, callbacks)
    except Stopped as stopped:
        console.log(f"stopped     by {stopped}, before the first step: there is no model")
    except UserError as error:
        return 1, f"{type(error).__name__}: {error}"
    except Exception as error:
        reason = f"internal error, please report it: {type(error).__name__}: {error}"
        return 2, f"{reason}\n\n{traceback.format_exc()}"
    return 0, ""


def _forget_earlier_run(paths: Paths) -> None:
    names = (SUMMARY_FILE, HISTORY_FILE, FAILURE_FILE, PAGE_FILE)
    for path in (paths.failure, *(paths.output_data / name for name in names)):
        path.unlink(missing_ok=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train", description="Fine-tune an image classifier as /opt/ml says.")
    parser.add_argument("--describe", action="store_true", help="print the table of hyperparameters and leave")
    parser.add_argument("--models", action="store_true", help="print the names of all models and leave")
    return parser.parse_args(arguments)


def _list_models() -> int:
    from classifier.vision.models import architectures  # noqa: PLC0415

    print("\n".join(architectures()))
    return 0


def _train(
    config: TrainingConfig, paths: Paths, console: Console, stop: StopSignal, callbacks: Sequence[Callback]
) -> None:
    began = time.time()
    import torch  # noqa: PLC0415

    from classifier.reporting.recording import Record  # noqa: PLC0415
    from classifier.training.fit import fit  # noqa: PLC0415

    watch, record = Watch(console, stop), Record(paths.output_data, paths.tensorboard)
    debugger = open_debugger(config, paths, console)
    callback = CallbackList([*record.callbacks, *callbacks, *([debugger] if debugger else [])], console.warn)
    try:
        outcome = fit(config, paths, watch, record=lambda outcome: _keep(outcome, record), callback=callback)
    except torch.OutOfMemoryError:
        parameters = config.hyperparameters
        raise ConfigError(
            f"the GPU's memory is too small for batch_size={parameters.batch_size} of image_size="
            f"{parameters.image_size} with {parameters.model}: lower one of them, or take a larger instance"
        ) from None
    engines = None
    if config.hyperparameters.optimize_for_cpu and outcome.best is not None:
        engines = _optimize(outcome, paths, console)
    _write_pictures(outcome, paths, console)
    try:
        _finish_record(_summarise(config, outcome, began), outcome, engines, record, console)
    except Exception:
        console.warn(f"the record is not complete; the model is not affected\n{traceback.format_exc()}")
    console.log(f"artifact    {paths.model}")


def _keep(outcome: "Outcome", record: "Record") -> None:
    record.keep_epoch(outcome.rows, outcome.manifest.metrics, outcome.best.number if outcome.best else None)


def _optimize(outcome: "Outcome", paths: Paths, console: Console) -> "EngineReport | None":
    """Convert the artifact for serving on a CPU. Where that fails, the artifact is served as it is: a warning."""
    import numpy as np  # noqa: PLC0415

    from classifier.engine.selection import MAX_PHOTOS, export  # noqa: PLC0415

    # Every k-th, since they are sorted by class.
    photos = outcome.data.validation[:: -(-len(outcome.data.validation) // MAX_PHOTOS)]
    try:
        pixels = np.stack([outcome.manifest.preprocessing.pixels_of(photo.path.read_bytes()) for photo in photos])
        report = export(paths.model, pixels, np.array([photo.label for photo in photos]))
    except Exception:
        console.warn(f"the model could not be converted for serving on a CPU\n{traceback.format_exc()}")
        return None
    for line in report.lines():
        console.log(f"engines     {line}")
    return report


def _write_pictures(outcome: "Outcome", paths: Paths, console: Console) -> None:
    """A picture that can't be drawn is a warning: it must not cost the user the model."""
    from classifier.reporting.plots import plot_confusion, plot_curves  # noqa: PLC0415

    if outcome.best is None or outcome.confusion is None:
        return
    try:
        plot_curves(paths.output_data / "curves.png", outcome.rows, outcome.best.number)
        plot_confusion(
            paths.output_data / "confusion_matrix.png",
            outcome.confusion.numpy(),
            [item.class_name for item in outcome.manifest.classes],
            f"Confusion on {outcome.judged_on}, {outcome.confusion.sum():,} photos",
        )
    except Exception:
        console.warn(f"a picture could not be drawn; the model is not affected\n{traceback.format_exc()}")


def _summarise(config: TrainingConfig, outcome: "Outcome", began: float) -> "Summary":
    from classifier.reporting.summary import Summary, changed, display_names  # noqa: PLC0415

    manifest = outcome.manifest
    return Summary(
        job_name=config.job_name,
        model=manifest.architecture,
        pretrained=outcome.source,
        channels=tuple(config.channels),
        classes=display_names(manifest.classes),
        photos=outcome.data.counts,
        data_fingerprint=manifest.data_fingerprint,
        hyperparameters=manifest.hyperparameters,
        changed=changed(manifest.hyperparameters, Hyperparameters().model_dump()),
        device=outcome.device,
        versions=manifest.versions,
        started=f"{datetime.fromtimestamp(began, UTC):%Y-%m-%dT%H:%M:%SZ}",
        duration_s=round(time.time() - began, 1),
        num_epochs=len(outcome.history),
        best_epoch=outcome.best.number if outcome.best else None,
        judged_on=outcome.judged_on,
        metrics=manifest.metrics,
        ended=outcome.ended,
    )


def _finish_record(
    summary: "Summary", outcome: "Outcome", engines: "EngineReport | None", record: "Record", console: Console
) -> None:
    record.finish(
        summary,
        confusion=None if outcome.confusion is None else outcome.confusion.numpy(),
        photos=outcome.data.test if outcome.judged_on == "test" else outcome.data.validation,
        engines=[asdict(row) for row in engines.rows] if engines else [],
        warn=console.warn,
    )


def _write_page(paths: Paths, console: Console) -> None:
    """The last thing of all, since it shows what everyone else has written."""
    from classifier.reporting.page import write_page  # noqa: PLC0415

    console.log(f"reports     {paths.output_data}")
    try:
        console.log(f"report      {write_page(paths.output_data)}")
    except Exception:
        console.warn(f"report.html could not be written; the model is not affected\n{traceback.format_exc()}")


def _record_failure(paths: Paths, reason: str) -> None:
    try:
        paths.failure.parent.mkdir(parents=True, exist_ok=True)
        paths.failure.write_text(reason + "\n", encoding="utf-8")
        if has_record(paths.output_data):
            (paths.output_data / FAILURE_FILE).write_text(reason.partition("\n")[0] + "\n", encoding="utf-8")
    except OSError as error:
        print(f"train: {paths.failure} can't be written: {error.strerror}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
