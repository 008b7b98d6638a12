"""A training from the platform's files to an artifact: the table of contents of this folder."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch
import torchvision
from torch import nn

import classifier
from classifier.callbacks import Callback
from classifier.contract.config import TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import ConfigError
from classifier.host import num_cores, tune_malloc
from classifier.training.console import Console, Watch
from classifier.training.data import Data, list_channels, load_data
from classifier.training.epochs import Outcome, Training
from classifier.training.folders import class_labels
from classifier.training.precision import Precision, choose_precision
from classifier.training.stages import Reader, Stages, frozen_stages, whole_stages
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import ModelManifest
from classifier.vision.models import build, check_image_size, preprocessing_for
from classifier.vision.preprocessing import Preprocessing
from classifier.vision.weights import load_pretrained


def fit(
    config: TrainingConfig, paths: Paths, watch: Watch, *, record: Callable[[Outcome], None], callback: Callback
) -> Outcome:
    """Train as the platform's files say, and leave the best epoch's artifact in ``paths.model``.

    ``record`` is called with the outcome so far after each epoch and at the end: nothing is lost when a job dies.
    ``callback`` sees every step.

    Raises:
        UserError: the hyperparameters, the photos or the pretrained weights are at fault.
        Stopped: a stop was asked for before the first step.
    """
    parameters, console = config.hyperparameters, watch.console
    torch.manual_seed(parameters.seed)
    precision = choose_precision(parameters.precision)
    if precision.device.type == "cpu":
        tune_malloc("training")
    _check(config, console)
    preprocessing = preprocessing_for(parameters.model, parameters.image_size)
    folders = list_channels(config, paths)
    console.log(f"device      {_describe_device(precision)}")
    network, source = _build_network(config, paths, len(class_labels(list(folders[0].files))))
    console.log(f"model       {parameters.model}, {source}; {_describe_size(network, parameters)}")
    num_workers = _num_workers(parameters)
    with _threads(max(1, num_workers)) as executor:
        data = load_data(folders, parameters, paths.output_data, executor, watch)
        console.log(f"photos      {_describe_data(data)}")
        reader = Reader(
            preprocessing=preprocessing,
            batch_size=parameters.batch_size,
            executor=executor if num_workers else None,
            num_workers=num_workers,
            pin=precision.device.type == "cuda",
        )
        module = Classifier(network, preprocessing).to(precision.device)
        manifest = _describe_model(parameters, data, preprocessing)
        training = Training(
            parameters=parameters,
            paths=paths,
            data=data,
            reader=reader,
            classifier=module,
            stages=_stages(module, data, reader, parameters, precision, watch),
            precision=precision,
            watch=watch,
            record=record,
            callback=callback,
            outcome=Outcome(manifest, data, _describe_device(precision), source),
        )
        return training.run()


def _check(config: TrainingConfig, console: Console) -> None:
    num_hosts = len(config.cluster.hosts)
    if num_hosts > 1:
        raise ConfigError(f"the job has {num_hosts} instances, and training runs on one: set InstanceCount to 1")
    if config.ignored_channels:
        console.warn(f"channels that training does not use: {', '.join(config.ignored_channels)}")
    if "pretrained" in config.channels and not config.hyperparameters.pretrained:
        console.warn("the channel 'pretrained' is not used, since pretrained=false")


def _build_network(config: TrainingConfig, paths: Paths, num_classes: int) -> tuple[nn.Module, str]:
    parameters = config.hyperparameters
    network = build(parameters.model, num_classes=num_classes, image_size=parameters.image_size)
    check_image_size(network, parameters.model, parameters.image_size)
    if not parameters.pretrained:
        return network, "from scratch"
    channel = paths.channel("pretrained") if "pretrained" in config.channels else None
    return network, f"pretrained ({load_pretrained(network, parameters.model, channel=channel)})"


def _stages(
    module: Classifier, data: Data, reader: Reader, parameters: Hyperparameters, precision: Precision, watch: Watch
) -> Stages:
    if parameters.freeze == "backbone":
        return frozen_stages(module, data, reader, parameters.augmentation, precision, watch)
    return whole_stages(module, data, reader, parameters.augmentation)


def _num_workers(parameters: Hyperparameters) -> int:
    return num_cores() if parameters.num_workers == "auto" else parameters.num_workers


@contextmanager
def _threads(count: int) -> Iterator[Executor]:
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
        # Who looked on does not belong to the model: its bytes are the same either way.
        hyperparameters=parameters.model_dump(exclude={"debug", "profile"}),
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
