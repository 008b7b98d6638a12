"""A fine-tuning job from the platform's files to an artifact, read from top to bottom."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import torch
import torchvision
from torch import nn

import classifier
from classifier.callbacks import Callback
from classifier.contract.config import TrainingConfig
from classifier.contract.driver import read_host
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, Stopped, failure_as_warning, is_out_of_memory
from classifier.host import num_cores
from classifier.training.checkpoints import CheckpointFolder, CheckpointSaver
from classifier.training.console import Console, Progress
from classifier.training.data import Data, list_channels, load_data
from classifier.training.epochs import Training, TrainingResult
from classifier.training.folders import class_labels
from classifier.training.precision import Precision, choose_precision, tune_for_training
from classifier.training.stages import LoaderConfig, Stages, frozen_stages, full_stages
from classifier.training.start import Start, build_network
from classifier.training.state import Checkpointing, Identity
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import ModelManifest
from classifier.vision.models import preprocessing_for
from classifier.vision.preprocessing import Preprocessing


def fit(config: TrainingConfig, paths: Paths, progress: Progress, callback: Callback) -> TrainingResult:
    """Fine-tune with the job's configuration and channels, and save the best epoch as an artifact in ``paths.model``.

    Raises:
        UserError: the hyperparameters, the photos, the pretrained weights or the GPU's memory don't allow it.
        Stopped: a stop was requested before the first step.
    """
    try:
        return _fit(config, paths, progress, callback)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parameters, where = config.hyperparameters, "GPU" if torch.cuda.is_available() else "machine"
        raise ConfigError(
            f"the {where}'s memory is too small for batch_size={parameters.batch_size} of image_size="
            f"{parameters.image_size} with {parameters.model}: lower one of them, or choose a larger instance type"
        ) from None


def _fit(config: TrainingConfig, paths: Paths, progress: Progress, callback: Callback) -> TrainingResult:
    parameters, console = config.hyperparameters, progress.console
    torch.manual_seed(parameters.seed)
    limit_threads()
    host = read_host(config.cluster.current_instance_type)
    precision = choose_precision(parameters.precision, wants_gpu=host.wants_cuda)
    tune_for_training(precision)
    _check(config, console)
    preprocessing = preprocessing_for(parameters.model, parameters.image_size)
    folders = list_channels(config, paths)
    console.log(f"device      {_describe_device(precision)}")
    start = build_network(config, paths, [label.folder for label in class_labels(folders[0].classes)])
    console.log(f"model       {parameters.model}, {start.source}; {_describe_size(start.network, parameters)}")
    num_workers = count_workers(parameters)
    with _decoding_threads(max(1, num_workers)) as executor:
        data = load_data(folders, parameters, paths.output_data, executor, progress)
        console.log(f"photos      {_describe_data(data)}")
        loading = LoaderConfig(
            preprocessing=preprocessing,
            batch_size=parameters.batch_size,
            executor=executor if num_workers else None,
            num_workers=num_workers,
            pin=precision.device.type == "cuda",
        )
        module = Classifier(start.network, preprocessing).to(precision.device)
        manifest = _describe_model(parameters, data, preprocessing)
        checkpoints = _open_checkpoints(config, paths, manifest, start, precision, console)
        training = Training(
            parameters=parameters,
            paths=paths,
            data=data,
            loading=loading,
            classifier=module,
            stages=_stages(module, data, loading, parameters, precision, progress),
            precision=precision,
            progress=progress,
            callback=callback,
            result=TrainingResult(manifest, data, _describe_device(precision), start.source),
            checkpoints=checkpoints,
        )
        return training.run()


def count_workers(parameters: Hyperparameters) -> int:
    """Return the number of decoding threads: ``num_workers``, or one a core for ``auto``; 0 decodes between steps."""
    return num_cores() if parameters.num_workers == "auto" else parameters.num_workers


def limit_threads() -> None:
    """Limit torch to the cgroup's CPU quota, of which it knows nothing; more threads than that stall each other."""
    if "OMP_NUM_THREADS" not in os.environ and num_cores() < torch.get_num_threads():
        torch.set_num_threads(num_cores())


def _check(config: TrainingConfig, console: Console) -> None:
    if config.ignored_channels:
        console.warn(f"channels that are not used: {', '.join(config.ignored_channels)}")
    if "pretrained" in config.channels and "model" in config.channels:
        console.warn("the channel 'pretrained' is not used, since the weights come from the channel 'model'")
    elif "pretrained" in config.channels and not config.hyperparameters.pretrained:
        console.warn("the channel 'pretrained' is not used, since pretrained=false")


def _stages(
    module: Classifier,
    data: Data,
    loading: LoaderConfig,
    parameters: Hyperparameters,
    precision: Precision,
    progress: Progress,
) -> Stages:
    if parameters.freeze == "backbone":
        return frozen_stages(module, data, loading, parameters.augmentation, precision, progress)
    return full_stages(module, data, loading, parameters.augmentation)


def _open_checkpoints(
    config: TrainingConfig,
    paths: Paths,
    manifest: ModelManifest,
    start: Start,
    precision: Precision,
    console: Console,
) -> Checkpointing | None:
    """Return the checkpoints of the job, whose network still has its starting weights; None if it has none."""
    if config.checkpoint is None:
        return None
    parameters = config.hyperparameters
    identity = Identity(
        hyperparameters=parameters.model_dump(),
        classes=tuple(label.folder for label in manifest.classes),
        data=manifest.data_fingerprint,
        weights=start.digest(),
    )
    folder = CheckpointFolder(paths.relocate(config.checkpoint.local_path), console.warn)
    saver = CheckpointSaver(folder, interval_s=parameters.checkpoint_interval_s, warn=console.warn)
    return Checkpointing(folder, saver, identity, {**manifest.versions, "precision": precision.name}, console)


@contextmanager
def _decoding_threads(count: int) -> Iterator[Executor]:
    executor = ThreadPoolExecutor(count, thread_name_prefix="decode")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _describe_model(parameters: Hyperparameters, data: Data, preprocessing: Preprocessing) -> ModelManifest:
    return ModelManifest(
        architecture=parameters.model,
        classes=data.classes,
        preprocessing=preprocessing,
        # These do not change the model, so the artifact has the same bytes with and without them.
        hyperparameters=parameters.model_dump(exclude={"debug", "profile", "checkpoint_interval_s", "ranks_per_host"}),
        data_fingerprint=data.fingerprint,
        versions={
            "classifier": classifier.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    )


def _describe_device(precision: Precision) -> str:
    if precision.device.type == "cuda":
        return f"{torch.cuda.get_device_name(precision.device)}, {precision.name}"
    return f"CPU, {torch.get_num_threads()} threads, {precision.name}"


def _describe_size(network: nn.Module, parameters: Hyperparameters) -> str:
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return f"{millions:.1f} M parameters, {'all' if parameters.freeze == 'none' else 'only the head'} trained"


def _describe_data(data: Data) -> str:
    parts = [("train", data.train), ("validation", data.validation), ("test", data.test)]
    counts = " · ".join(f"{name} {len(samples):,}" for name, samples in parts if samples)
    names = [item.class_name for item in data.classes]
    shown = ", ".join(names if len(names) <= 12 else [*names[:10], "…", names[-1]])
    return f"{counts} in {len(names)} classes: {shown}"


def convert_for_cpu(result: TrainingResult, paths: Paths, progress: Progress) -> list[dict[str, object]]:
    """Convert the artifact for serving on a CPU and report the engines.

    A failure is a warning. A stop ends the conversion, since the platform waits only 120 s; ``serve`` converts then.

    Returns:
        One row for each engine that was compared, or nothing if there was no conversion.
    """
    if result.best is None or not result.manifest.hyperparameters["optimize_for_cpu"]:
        return []
    console = progress.console
    try:
        return _convert(result, paths, progress)
    except Stopped as stopped:
        console.log(f"engines     not compared, because of {stopped}; serve converts the model when it starts")
    return []


def _convert(result: TrainingResult, paths: Paths, progress: Progress) -> list[dict[str, object]]:
    console = progress.console
    with failure_as_warning(console.warn, "the model could not be converted for serving on a CPU"):
        progress.check()
        from classifier.engine.selection import MAX_PHOTOS, export  # noqa: PLC0415 - imports OpenVINO

        # Every k-th photo, since they are sorted by class.
        photos = result.data.validation[:: -(-len(result.data.validation) // MAX_PHOTOS)]
        pixels = np.stack([result.manifest.preprocessing.pixels_of(photo.read()) for photo in photos])
        report = export(paths.model, pixels, photos.labels.astype(np.int64), check=progress.check)
        for line in report.lines():
            console.log(f"engines     {line}")
        return [asdict(row) for row in report.rows]
    return []
