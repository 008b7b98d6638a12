"""The program ``train``: what the platform's files say → an artifact, reports, an exit code.

Exit codes: 0 completed, or stopped in time; 1 the user can mend it; 2 our fault. The reason lies in ``output/failure``,
message first, of which the platform shows 1,024 characters.

Torch takes seconds to import, so whatever can go wrong without it is told before.
"""

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from classifier.contract.config import TrainingConfig, read_training_config
from classifier.contract.driver import check_driver, read_host
from classifier.contract.hyperparameters import describe
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, Stopped, UserError
from classifier.observer import Observer, Observers
from classifier.training.console import Console, StopSignal, Watch

if TYPE_CHECKING:
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
    try:
        paths.failure.unlink(missing_ok=True)
        config = read_training_config(paths)
        check_driver(read_host(config.cluster.current_instance_type), "training")
        from classifier.profiling.profiler import profiled  # noqa: PLC0415

        with profiled(config, paths, console) as observers:
            _train(config, paths, console, stop, observers)
    except Stopped as stopped:
        console.say(f"stopped     by {stopped}, before the first step: there is no model")
    except UserError as error:
        return _fail(paths, 1, f"{type(error).__name__}: {error}")
    except Exception as error:
        reason = f"internal error, please report it: {type(error).__name__}: {error}"
        return _fail(paths, 2, f"{reason}\n\n{traceback.format_exc()}")
    return 0


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
    config: TrainingConfig, paths: Paths, console: Console, stop: StopSignal, observers: Sequence[Observer]
) -> None:
    import torch  # noqa: PLC0415

    from classifier.training.fit import fit  # noqa: PLC0415

    watch, observer = Watch(console, stop), Observers(observers, console.warn)
    try:
        outcome = fit(config, paths, watch, record=lambda outcome: _write_tables(outcome, paths), observer=observer)
    except torch.OutOfMemoryError:
        parameters = config.hyperparameters
        raise ConfigError(
            f"the GPU's memory is too small for batch_size={parameters.batch_size} of image_size="
            f"{parameters.image_size} with {parameters.model}: lower one of them, or take a larger instance"
        ) from None
    if config.hyperparameters.optimize_for_cpu and outcome.best is not None:
        _optimize(outcome, paths, console)
    _write_pictures(outcome, paths, console)
    console.say(f"artifact    {paths.model}")
    console.say(f"reports     {paths.output_data}")


def _write_tables(outcome: "Outcome", paths: Paths) -> None:
    from classifier.reporting.tables import write_history, write_metrics  # noqa: PLC0415

    write_history(paths.output_data / "history.csv", outcome.rows)
    write_metrics(paths.output_data / "metrics.json", outcome.card.metrics)


def _optimize(outcome: "Outcome", paths: Paths, console: Console) -> None:
    """Convert the artifact for serving on a CPU. Where that fails, the artifact is served as it is: a warning."""
    import numpy as np  # noqa: PLC0415

    from classifier.serving.export import MAX_PHOTOS, export  # noqa: PLC0415

    # Every k-th, since they are sorted by class.
    photos = outcome.validation[:: -(-len(outcome.validation) // MAX_PHOTOS)]
    try:
        pixels = np.stack([outcome.card.preprocessing.pixels_of(photo.path.read_bytes()) for photo in photos])
        report = export(paths.model, pixels, np.array([photo.label for photo in photos]))
    except Exception:
        console.warn(f"the model could not be converted for serving on a CPU\n{traceback.format_exc()}")
        return
    for line in report.lines():
        console.say(f"engines     {line}")


def _write_pictures(outcome: "Outcome", paths: Paths, console: Console) -> None:
    """A picture that can't be drawn is a warning: it must not cost the user the model."""
    from classifier.reporting.plots import plot_confusion, plot_curves  # noqa: PLC0415

    if outcome.best is None or outcome.confusion is None:
        return
    tested = "test:accuracy" in outcome.card.metrics
    try:
        plot_curves(paths.output_data / "curves.png", outcome.rows, outcome.best.number)
        plot_confusion(
            paths.output_data / "confusion_matrix.png",
            outcome.confusion.numpy(),
            [item.class_name for item in outcome.card.classes],
            f"Confusion on {'test' if tested else 'validation'}, {outcome.confusion.sum():,} photos",
        )
    except Exception:
        console.warn(f"a picture could not be drawn; the model is not affected\n{traceback.format_exc()}")


def _fail(paths: Paths, code: int, reason: str) -> int:
    print(f"train failed: {reason}", file=sys.stderr, flush=True)
    try:
        paths.failure.parent.mkdir(parents=True, exist_ok=True)
        paths.failure.write_text(reason + "\n", encoding="utf-8")
    except OSError as error:
        print(f"train: {paths.failure} can't be written: {error.strerror}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
