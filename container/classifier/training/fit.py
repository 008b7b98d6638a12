"""A training from its channels to its artifact: the table of contents of this folder."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, isfinite
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

import classifier
from classifier.contract.config import TrainingConfig
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.metrics import METRICS, format_metrics
from classifier.contract.paths import Paths
from classifier.errors import ConfigError
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, Batches, PhotoBatches, in_order, num_steps, shuffled
from classifier.training.console import Console, Stopped, StopSignal, Watch
from classifier.training.data import Data, list_channels, load_data
from classifier.training.features import FeatureBatches, compute_features, freeze_backbone, head_comes_last
from classifier.training.folders import class_labels
from classifier.training.loop import Evaluation, Trainer, evaluate
from classifier.training.memory import keep_freed_memory
from classifier.training.optimization import build_optimizer, build_schedule, class_weights
from classifier.training.precision import Precision, choose_precision
from classifier.training.survey import Sample
from classifier.vision import artifact
from classifier.vision.artifact import Classifier
from classifier.vision.card import ModelCard
from classifier.vision.models import build, preprocessing_for
from classifier.vision.preprocessing import Preprocessing
from classifier.vision.weights import load_pretrained


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; ``metrics`` by their names in the metric table."""

    number: int
    metrics: dict[str, float]
    lr: float
    seconds: float


@dataclass
class Outcome:
    """What a training came to. ``confusion`` is of ``test``, or of ``validation`` where there is no test channel."""

    card: ModelCard
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    confusion: Tensor | None = None

    @property
    def rows(self) -> list[dict[str, float]]:
        """The history as a table: ``epoch``, the metrics by name, ``lr``, ``seconds``."""
        return [
            {"epoch": epoch.number, **epoch.metrics, "lr": epoch.lr, "seconds": round(epoch.seconds, 3)}
            for epoch in self.history
        ]


Record = Callable[[Outcome], None]


def fit(config: TrainingConfig, paths: Paths, stop: StopSignal, console: Console, record: Record) -> Outcome:
    """Train as the platform's files say, and leave the best epoch's artifact in ``paths.model``.

    ``record`` is called with the outcome so far after each epoch and at the end: nothing is lost when a job dies.

    Raises:
        UserError: the hyperparameters, the photos or the pretrained weights are at fault.
        Stopped: a stop was asked for before the first step.
    """
    parameters = config.hyperparameters
    watch = Watch(console, stop)
    torch.manual_seed(parameters.seed)
    precision = choose_precision(parameters.precision)
    if precision.device.type == "cpu":
        keep_freed_memory()
    _check(config, console)
    preprocessing = preprocessing_for(parameters.model, parameters.image_size)
    folders = list_channels(config, paths)
    classes = class_labels(list(folders[0].files))
    console.say(f"device      {_describe_device(precision)}")
    network, source = _build_network(config, paths, len(classes))
    console.say(f"model       {parameters.model}, {source}; {_describe_size(network, parameters)}")
    num_workers = _num_workers(parameters)
    with _threads(max(1, num_workers)) as executor:
        data = load_data(folders, parameters, paths.output_data, executor, watch)
        console.say(f"photos      {_describe_data(data)}")
        training = Training(
            parameters=parameters,
            paths=paths,
            data=data,
            preprocessing=preprocessing,
            classifier=Classifier(network, preprocessing).to(precision.device),
            precision=precision,
            executor=executor if num_workers else None,
            num_workers=num_workers,
            watch=watch,
            record=record,
        )
        return training.run()


class Stage(NamedTuple):
    """What is gone through, and the module that turns its inputs into logits: photos and all of it, or features and
    the head."""

    module: nn.Module
    batches: Batches


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a training needs, ready to run."""

    parameters: Hyperparameters
    paths: Paths
    data: Data
    preprocessing: Preprocessing
    classifier: Classifier
    precision: Precision
    executor: Executor | None
    num_workers: int
    watch: Watch
    record: Record

    def run(self) -> Outcome:
        """Train, keep the best epoch, and test it as it was saved."""
        console, outcome = self.watch.console, self.outcome
        try:
            self._train()
            if outcome.best is not None:
                console.say(f"best        epoch {outcome.best.number}, by {self.parameters.best_metric}")
            if self.data.test:
                self._test()
        except Stopped as stopped:
            console.say(f"stopped     by {stopped}, with the best model so far")
            if outcome.best is None:
                self._save()
        self.record(outcome)
        return outcome

    @cached_property
    def outcome(self) -> Outcome:
        return Outcome(
            ModelCard(
                architecture=self.parameters.model,
                classes=self.data.classes,
                preprocessing=self.preprocessing,
                hyperparameters=self.parameters.model_dump(),
                data_fingerprint=self.data.fingerprint,
                versions={
                    "classifier": classifier.__version__,
                    "torch": torch.__version__,
                    "torchvision": torchvision.__version__,
                },
            )
        )

    def _train(self) -> None:
        train, validation, trained = self._stages()
        trainer = self._trainer(train, trained)
        for number in range(1, self.parameters.epochs + 1):
            began, lr = time.perf_counter(), trainer.optimizer.param_groups[0]["lr"]
            loss = self._train_epoch(trainer, train.batches, number)
            evaluation = self._evaluate(validation, "validating")
            metrics = {"train:loss": loss, **evaluation.metrics("validation", ("loss", "accuracy", "top5", "f1"))}
            epoch = Epoch(number, metrics, lr, time.perf_counter() - began)
            self._finish_epoch(epoch, evaluation)
            if not isfinite(loss):
                self._give_up(epoch)
                break
            if self._has_waited_enough(epoch):
                self.watch.console.say(
                    f"stopped     early: {self.parameters.best_metric} has not improved for "
                    f"{self.parameters.early_stopping_patience} epochs"
                )
                break

    def _stages(self) -> tuple[Stage, Stage, nn.Module]:
        """What is trained on, what is validated on, and the part of the module that learns."""
        whole = self.classifier
        train = Stage(whole, self._photos(self.data.train, augmentation=self.parameters.augmentation))
        validation = Stage(whole, self._photos(self.data.validation))
        if self.parameters.freeze == "none":
            return train, validation, whole
        head = freeze_backbone(whole.network)
        if head_comes_last(whole, self.preprocessing.crop):
            validation = Stage(head, self._features(self.data.validation, mirrored=False))
            if self.parameters.augmentation in ("none", "flip"):
                train = Stage(head, self._features(self.data.train, mirrored=self.parameters.augmentation == "flip"))
        return train, validation, head

    def _photos(self, samples: Sequence[Sample], *, augmentation: str = "none") -> PhotoBatches:
        return PhotoBatches(
            samples=samples,
            preprocessing=self.preprocessing,
            batch_size=self.parameters.batch_size,
            augmentation=PRESETS[augmentation],
            executor=self.executor,
            num_workers=self.num_workers,
            pin=self.precision.device.type == "cuda",
        )

    def _features(self, samples: Sequence[Sample], *, mirrored: bool) -> FeatureBatches:
        photos = self._photos(samples)
        with self.watch.progress("computing features", ceil(len(samples) / photos.batch_size)) as advance:
            batches = _counted(in_order(photos), advance)
            features, labels = compute_features(self.classifier, batches, self.precision, mirrored=mirrored)
        return FeatureBatches(features, labels, self.parameters.batch_size)

    def _trainer(self, train: Stage, trained: nn.Module) -> Trainer:
        parameters = self.parameters
        optimizer = build_optimizer(trained, parameters)
        weight = None
        if parameters.class_weights == "balanced":
            weight = class_weights((sample.label for sample in self.data.train), len(self.data.classes))
        criterion = nn.CrossEntropyLoss(weight, label_smoothing=parameters.label_smoothing)
        return Trainer(
            module=train.module,
            trained=trained,
            optimizer=optimizer,
            schedule=build_schedule(optimizer, parameters, num_steps(len(train.batches), parameters.batch_size)),
            criterion=criterion.to(self.precision.device),
            precision=self.precision,
            augmentation=PRESETS[parameters.augmentation] if isinstance(train.batches, PhotoBatches) else None,
        )

    def _train_epoch(self, trainer: Trainer, batches: Batches, number: int) -> float:
        seed = self.parameters.seed * 1009 + number
        order = shuffled(len(batches), self.parameters.batch_size, seed=seed)
        steps = num_steps(len(batches), self.parameters.batch_size)
        with self.watch.progress(f"epoch {number}/{self.parameters.epochs}", steps) as advance:
            return trainer.train_epoch(batches.iterate(order, seed=seed), seed=seed, advance=advance)

    def _evaluate(self, stage: Stage, what: str, precision: Precision | None = None) -> Evaluation:
        with self.watch.progress(what, ceil(len(stage.batches) / self.parameters.batch_size)) as advance:
            return evaluate(
                stage.module,
                in_order(stage.batches),
                num_classes=len(self.data.classes),
                precision=precision or self.precision,
                advance=advance,
            )

    def _finish_epoch(self, epoch: Epoch, evaluation: Evaluation) -> None:
        outcome, name = self.outcome, self.parameters.best_metric
        is_best = isfinite(epoch.metrics["train:loss"]) and (
            outcome.best is None or METRICS[name].is_better(epoch.metrics[name], outcome.best.metrics[name])
        )
        outcome.history.append(epoch)
        if is_best:
            outcome.best, outcome.confusion = epoch, evaluation.confusion
            self._save(epoch.metrics)
        self.watch.console.say(
            f"epoch {epoch.number:>3}/{self.parameters.epochs}  {format_metrics(epoch.metrics)}  "
            f"lr={epoch.lr:.2e}  {epoch.seconds:.1f} s{'  best' if is_best else ''}"
        )
        self.record(outcome)

    def _save(self, metrics: dict[str, float] | None = None) -> None:
        self.outcome.card = self.outcome.card.model_copy(update={"metrics": metrics or {}})
        artifact.save(self.paths.model, self.classifier.network, self.outcome.card)

    def _give_up(self, epoch: Epoch) -> None:
        advice = f"lower lr (now {self.parameters.lr:g}) or add warmup_epochs"
        if self.outcome.best is None:
            raise ConfigError(
                f"training diverged in its first epoch, the loss is {epoch.metrics['train:loss']}: {advice}"
            )
        self.watch.console.warn(f"training diverged in epoch {epoch.number} and ends here: {advice}")

    def _has_waited_enough(self, epoch: Epoch) -> bool:
        patience, best = self.parameters.early_stopping_patience, self.outcome.best
        return bool(patience) and best is not None and epoch.number - best.number >= patience

    def _test(self) -> None:
        """Test what was saved, read back and computed in full precision: what is told is what is shipped."""
        saved, _ = artifact.load(self.paths.model, self.precision.device)
        full = Precision(self.precision.device, "fp32")
        evaluation = self._evaluate(Stage(saved, self._photos(self.data.test)), "testing", full)
        metrics = evaluation.metrics("test", ("loss", "accuracy", "f1"))
        self.outcome.confusion = evaluation.confusion
        self.outcome.card = self.outcome.card.model_copy(update={"metrics": {**self.outcome.card.metrics, **metrics}})
        self.outcome.card.write(self.paths.model)
        self.watch.console.say(f"test        {format_metrics(metrics)}")


def _check(config: TrainingConfig, console: Console) -> None:
    hosts = config.cluster.hosts
    if len(hosts) > 1:
        raise ConfigError(f"the job has {len(hosts)} instances, and training runs on one: set InstanceCount to 1")
    if config.ignored_channels:
        console.warn(f"channels that training does not use: {', '.join(config.ignored_channels)}")
    if "pretrained" in config.channels and not config.hyperparameters.pretrained:
        console.warn("the channel 'pretrained' is not used, since pretrained=false")


def _build_network(config: TrainingConfig, paths: Paths, num_classes: int) -> tuple[nn.Module, str]:
    parameters = config.hyperparameters
    network = build(parameters.model, num_classes=num_classes, image_size=parameters.image_size)
    if not parameters.pretrained:
        return network, "from scratch"
    channel = paths.channel("pretrained") if "pretrained" in config.channels else None
    return network, f"pretrained ({load_pretrained(network, parameters.model, channel=channel)})"


def _num_workers(parameters: Hyperparameters) -> int:
    return len(os.sched_getaffinity(0)) if parameters.num_workers == "auto" else parameters.num_workers


@contextmanager
def _threads(count: int) -> Iterator[Executor]:
    executor = ThreadPoolExecutor(count, thread_name_prefix="decode")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _counted(batches: Iterator[Batch], advance: Callable[[], object]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance()


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
