"""A fine-tuning job from the platform's files to an artifact, read from top to bottom."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np
import torch
import torchvision
from torch import nn

import classifier
from classifier.callbacks import Callback
from classifier.contract.config import TrainingConfig
from classifier.contract.driver import read_host
from classifier.contract.hyperparameters import CpuEngine, Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, Stopped, failure_as_warning, is_out_of_memory
from classifier.host import num_cores
from classifier.training.checkpoints import CheckpointFolder, CheckpointSaver
from classifier.training.console import Console, Progress
from classifier.training.data import Data, list_channels, load_data
from classifier.training.epochs import Training, TrainingResult
from classifier.training.folders import ChannelFolder, class_labels
from classifier.training.group import Group, open_group, share_tensors
from classifier.training.plan import EpochPlan
from classifier.training.precision import Precision, choose_precision, tune_for_training
from classifier.training.samples import SampleTable
from classifier.training.stages import LoaderConfig, Stages, frozen_stages, full_stages
from classifier.training.start import Start, build_network
from classifier.training.state import Checkpointing, Identity
from classifier.training.stopping import RankCallbacks, SharedStop
from classifier.training.sync_batchnorm import synchronize_batchnorm
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import ModelManifest
from classifier.vision.models import build, preprocessing_for
from classifier.vision.preprocessing import Preprocessing

_FEW_PHOTOS = 8  # of a rank and step, below which the exchanges between the ranks outweigh the arithmetic


def fit(config: TrainingConfig, paths: Paths, progress: Progress, callback: Callback) -> TrainingResult:
    """Fine-tune with the job's configuration and channels, and save the best epoch as an artifact in ``paths.model``.

    As one of several ranks, fine-tune together with the others; rank 0 saves the artifact.

    Raises:
        UserError: the hyperparameters, the photos, the pretrained weights or the GPU's memory don't allow it.
        Stopped: a stop was requested before the first step.
    """
    try:
        with open_group() as group:
            stop = SharedStop(progress.stop, group)
            if not group.is_alone:
                progress = Progress(progress.console, stop)
                callback = RankCallbacks(callback, stop, progress.console.warn)
            return _fit(config, paths, progress, callback, stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        parameters, where = config.hyperparameters, "GPU" if torch.cuda.is_available() else "machine"
        raise ConfigError(
            f"the {where}'s memory is too small for batch_size={parameters.batch_size} of image_size="
            f"{parameters.image_size} with {parameters.model}: lower one of them, or choose a larger instance type"
        ) from None


def _fit(
    config: TrainingConfig, paths: Paths, progress: Progress, callback: Callback, stop: SharedStop
) -> TrainingResult:
    parameters, console, group = config.hyperparameters, progress.console, stop.group
    torch.manual_seed(parameters.seed)
    limit_threads()
    host = read_host(config.cluster.current_instance_type)
    precision = choose_precision(parameters.precision, group.local_rank, wants_gpu=host.wants_cuda)
    tune_for_training(precision)
    _check(config, console)
    preprocessing = preprocessing_for(parameters.model, parameters.image_size)
    device = _describe_device(precision, group)
    num_workers = count_workers(parameters)
    with _decoding_threads(max(1, num_workers)) as executor:
        with stop.agreement():
            prepared = _prepare(config, paths, device, console) if group.is_main else None
        start, folders = _share(prepared, parameters, paths, group)
        data = load_data(folders, parameters, paths.output_data, executor, progress, stop)
        if group.is_main:
            console.log(f"photos      {_describe_data(data)}")
        check_shares(parameters, data, group, console)
        loading = LoaderConfig(
            preprocessing=preprocessing,
            batch_size=parameters.batch_size,
            executor=executor if num_workers else None,
            num_workers=num_workers,
            pin=precision.device.type == "cuda",
        )
        module = Classifier(start.network, preprocessing).to(precision.device)
        manifest = _describe_model(parameters, data, preprocessing)
        checkpoints = _open_checkpoints(config, paths, manifest, start, precision, console) if group.is_main else None
        if parameters.sync_batchnorm and parameters.freeze == "none" and not group.is_alone:
            synchronize_batchnorm(module, group)
        training = Training(
            parameters=parameters,
            paths=paths,
            data=data,
            loading=loading,
            classifier=module,
            stages=_stages(module, data, loading, parameters, precision, progress, stop),
            precision=precision,
            progress=progress,
            callback=callback,
            result=TrainingResult(manifest, data, device, start.source),
            stop=stop,
            checkpoints=checkpoints,
        )
        return training.run()


def _prepare(
    config: TrainingConfig, paths: Paths, device: str, console: Console
) -> tuple[Start, tuple[ChannelFolder, ...]]:
    """List the channels, and build the network with its starting weights."""
    parameters = config.hyperparameters
    folders = list_channels(config, paths)
    console.log(f"device      {device}")
    start = build_network(config, paths, [label.folder for label in class_labels(folders[0].classes)])
    console.log(f"model       {parameters.model}, {start.source}; {_describe_size(start.network, parameters)}")
    return start, folders


def _share(
    prepared: tuple[Start, tuple[ChannelFolder, ...]] | None, parameters: Hyperparameters, paths: Paths, group: Group
) -> tuple[Start, tuple[ChannelFolder, ...]]:
    """Return on every rank what rank 0 has prepared, with the paths of the rank's own host."""
    found = group.broadcast(None if prepared is None else (paths.base, prepared[1]))
    assert found is not None, "rank 0 has prepared it"
    base, folders = found
    if prepared is None:
        classes = len(folders[0].classes)
        start = Start(build(parameters.model, num_classes=classes, image_size=parameters.image_size), "", "none")
        folders = tuple(replace(one, root=paths.base / one.root.relative_to(base)) for one in folders)
    else:
        start = prepared[0]
    share_tensors(start.network, group)
    return start, folders


def check_shares(parameters: Hyperparameters, data: Data, group: Group, console: Console) -> None:
    """Check that a rank's share of a batch is not too small.

    Raises:
        ConfigError: a rank would normalize batches of one photo by themselves.
    """
    plan = EpochPlan(len(data.train), parameters.batch_size, parameters.seed)
    # Batches differ in size by one at most, and so do the ranks' shares of a batch.
    smallest, largest = plan.num_samples // plan.steps, -(-plan.num_samples // plan.steps)
    if group.is_alone or largest // group.world_size >= _FEW_PHOTOS:
        return
    shares = f"{group.world_size} ranks share batches of {largest} photos"
    if smallest // group.world_size < 2 and not parameters.sync_batchnorm and parameters.freeze == "none":
        raise ConfigError(
            f"{shares}, so that some get fewer than the two that sync_batchnorm=false needs: raise batch_size (now "
            f"{parameters.batch_size}), or set sync_batchnorm=true"
        )
    console.warn(
        f"{shares} and spend much of their time waiting for each other: raise batch_size, the number of photos per "
        "step of all ranks together, or use fewer ranks"
    )


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
    stop: SharedStop,
) -> Stages:
    if parameters.freeze == "backbone":
        return frozen_stages(module, data, loading, parameters.augmentation, precision, progress, stop)
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


def _describe_device(precision: Precision, group: Group) -> str:
    name = f"CPU, {torch.get_num_threads()} threads"
    if precision.device.type == "cuda":
        name = torch.cuda.get_device_name(precision.device)
    if group.is_alone:
        return f"{name}, {precision.name}"
    hosts = "one host" if group.num_hosts == 1 else f"{group.num_hosts} hosts"
    return f"{group.world_size} ranks on {hosts}, each: {name}, {precision.name}"


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
        from classifier.engine.selection import export  # noqa: PLC0415 - imports OpenVINO

        photos = result.data.validation
        report = export(
            paths.model,
            _ValidationPixels(photos, result.manifest.preprocessing),
            photos.labels.astype(np.int64),
            cpu_engine=cast(CpuEngine, result.manifest.hyperparameters["cpu_engine"]),
            check=progress.check,
        )
        for line in report.lines():
            console.log(f"engines     {line}")
        return [asdict(row) for row in report.rows]
    return []


@dataclass(frozen=True)
class _ValidationPixels:
    """Validation photos, decoded when they are asked for."""

    photos: SampleTable
    preprocessing: Preprocessing

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.stack([self.preprocessing.pixels_of(photo.read()) for photo in self.photos.select(indices)])
