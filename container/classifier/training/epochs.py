"""The epochs of a training: what each comes to, which is best, when it ends, and what is kept of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, isfinite

from torch import Tensor, nn

from classifier.callbacks import Callback, Mode, TrainingContext
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.metrics import METRICS, format_metrics
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, Stopped
from classifier.training.augmentation import PRESETS
from classifier.training.batches import PhotoBatches, in_order, num_steps, shuffled
from classifier.training.console import Watch
from classifier.training.data import Data
from classifier.training.loop import Evaluation, Trainer, evaluate
from classifier.training.optimization import build_optimizer, build_schedule, class_weights
from classifier.training.precision import Precision
from classifier.training.stages import Reader, Stage, Stages
from classifier.vision import artifact
from classifier.vision.artifact import Classifier
from classifier.vision.manifest import ModelManifest


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; ``metrics`` by their names in the metric table."""

    number: int
    metrics: dict[str, float]
    lr: float
    seconds: float

    def is_better(self, than: "Epoch | None", metric: str) -> bool:
        """Better by ``metric``, or as good by it and of lower validation loss. A diverged epoch never is."""
        if not isfinite(self.metrics["train:loss"]):
            return False
        if than is None:
            return True
        if self.metrics[metric] == than.metrics[metric]:
            metric = "validation:loss"
        return METRICS[metric].is_better(self.metrics[metric], than.metrics[metric])


@dataclass
class Outcome:
    """What a training came to.

    ``confusion`` is of ``test``, or of ``validation`` where there is no test channel. ``source`` tells where the
    weights came from that it started with; ``ended`` why, when it was not after the last epoch.
    """

    manifest: ModelManifest
    data: Data
    device: str
    source: str
    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    confusion: Tensor | None = None
    ended: str = ""

    @property
    def rows(self) -> list[dict[str, float]]:
        """The history as a table: ``epoch``, the metrics by name, ``lr``, ``seconds``."""
        return [
            {"epoch": epoch.number, **epoch.metrics, "lr": epoch.lr, "seconds": round(epoch.seconds, 3)}
            for epoch in self.history
        ]

    @property
    def judged_on(self) -> str:
        """The channel that ``confusion`` is of."""
        return "test" if "test:accuracy" in self.manifest.metrics else "validation"

    def add_metrics(self, metrics: dict[str, float]) -> None:
        self.manifest = self.manifest.model_copy(update={"metrics": {**self.manifest.metrics, **metrics}})


@dataclass(frozen=True, kw_only=True)
class Training:
    """All that a training needs, ready to run.

    ``record`` is told the outcome so far after each epoch; ``callback`` sees every step.
    """

    parameters: Hyperparameters
    paths: Paths
    data: Data
    reader: Reader
    classifier: Classifier
    stages: Stages
    precision: Precision
    watch: Watch
    record: Callable[[Outcome], None]
    callback: Callback
    outcome: Outcome

    def run(self) -> Outcome:
        """Train, keep the best epoch, and test it as it was saved. A stop keeps what there is."""
        try:
            self._train()
            if self.data.test:
                self._test()
        except Stopped as stopped:
            self.outcome.ended = f"stopped by {stopped}"
            self.watch.console.log(f"stopped     by {stopped}; the best model so far is kept")
            if self.outcome.best is None:
                self._save({})
        finally:
            self.callback.on_train_end()
        self.record(self.outcome)
        return self.outcome

    def _train(self) -> None:
        trainer = self._trainer()
        self.callback.on_train_begin(self._context(trainer))
        for number in range(1, self.parameters.epochs + 1):
            began, lr = time.perf_counter(), trainer.optimizer.param_groups[0]["lr"]
            loss = self._train_epoch(trainer, number)
            evaluation = self._evaluate(self.stages.validation, "validation", number, self.precision)
            metrics = {"train:loss": loss, **evaluation.metrics("validation", ("loss", "accuracy", "top5", "f1"))}
            epoch = Epoch(number, metrics, lr, time.perf_counter() - began)
            self._keep(epoch, evaluation)
            self.callback.on_epoch_end(metrics)
            if self._is_over(epoch):
                break
        if self.outcome.best is not None:
            self.watch.console.log(f"best        epoch {self.outcome.best.number}, by {self.parameters.best_metric}")

    def _trainer(self) -> Trainer:
        parameters, batches = self.parameters, self.stages.train.batches
        optimizer = build_optimizer(self.stages.trained, parameters)
        weight = None
        if parameters.class_weights == "balanced":
            weight = class_weights((sample.label for sample in self.data.train), len(self.data.classes))
        criterion = nn.CrossEntropyLoss(weight, label_smoothing=parameters.label_smoothing)
        return Trainer(
            module=self.stages.train.module,
            trained=self.stages.trained,
            optimizer=optimizer,
            schedule=build_schedule(optimizer, parameters, num_steps(len(batches), parameters.batch_size)),
            criterion=criterion.to(self.precision.device),
            precision=self.precision,
            augmentation=PRESETS[parameters.augmentation] if isinstance(batches, PhotoBatches) else None,
        )

    def _train_epoch(self, trainer: Trainer, number: int) -> float:
        batches, batch_size = self.stages.train.batches, self.parameters.batch_size
        seed = self.parameters.seed * 1009 + number
        order = shuffled(len(batches), batch_size, seed=seed)
        what = f"epoch {number}/{self.parameters.epochs}"
        self.callback.on_epoch_begin("train", number)
        with self.watch.progress(what, num_steps(len(batches), batch_size)) as advance:
            chosen = batches.iterate(order, seed=seed)
            return trainer.train_epoch(chosen, seed=seed, advance=advance, callback=self.callback)

    def _context(self, trainer: Trainer) -> TrainingContext:
        return TrainingContext(
            network=self.classifier.network,
            module=trainer.module,
            trained=trainer.trained,
            criterion=trainer.criterion,
            optimizer=trainer.optimizer,
            device=self.precision.device,
            num_epochs=self.parameters.epochs,
            class_names=[one.class_name for one in self.data.classes],
            steps_per_epoch=num_steps(len(self.stages.train.batches), self.parameters.batch_size),
        )

    def _evaluate(self, stage: Stage, mode: Mode, number: int, precision: Precision) -> Evaluation:
        self.callback.on_epoch_begin(mode, number)
        with self.watch.progress(mode, ceil(len(stage.batches) / self.parameters.batch_size)) as advance:
            return evaluate(
                stage.module,
                in_order(stage.batches),
                num_classes=len(self.data.classes),
                precision=precision,
                advance=advance,
                callback=self.callback,
            )

    def _keep(self, epoch: Epoch, evaluation: Evaluation) -> None:
        outcome = self.outcome
        outcome.history.append(epoch)
        is_best = epoch.is_better(outcome.best, self.parameters.best_metric)
        if is_best:
            outcome.best, outcome.confusion = epoch, evaluation.confusion
            with self.callback.phase("checkpoint"):
                self._save(epoch.metrics)
        self.watch.console.log(
            f"epoch {epoch.number:>3}/{self.parameters.epochs}  {format_metrics(epoch.metrics)}  "
            f"lr={epoch.lr:.2e}  {epoch.seconds:.1f} s{'  best' if is_best else ''}"
        )
        self.record(outcome)

    def _save(self, metrics: dict[str, float]) -> None:
        self.outcome.add_metrics(metrics)
        artifact.save(self.paths.model, self.classifier.network, self.outcome.manifest)

    def _is_over(self, epoch: Epoch) -> bool:
        """Whether the loss is lost or patience is.

        Raises:
            ConfigError: the loss is lost in the first epoch already.
        """
        best, patience, say = self.outcome.best, self.parameters.early_stopping_patience, self.watch.console.log
        if not isfinite(epoch.metrics["train:loss"]):
            what = f"training diverged in epoch {epoch.number}, its loss is {epoch.metrics['train:loss']}"
            advice = f"lower lr (now {self.parameters.lr:g}) or add warmup_epochs"
            if best is None:
                raise ConfigError(f"{what}: {advice}")
            self.outcome.ended = f"{what}: {advice}"
            say(f"warning: {what}, and ends here: {advice}")
            return True
        if patience and best is not None and epoch.number - best.number >= patience:
            self.outcome.ended = f"{patience} epochs without a better {self.parameters.best_metric}"
            say(f"stopped     early: {self.outcome.ended}")
            return True
        return False

    def _test(self) -> None:
        """Test what was saved, read back and computed in full precision: what is told is what is shipped."""
        saved, _ = artifact.load(self.paths.model, self.precision.device)
        stage = Stage(saved, self.reader.photos(self.data.test))
        number = self.outcome.best.number if self.outcome.best else 0
        evaluation = self._evaluate(stage, "test", number, Precision(self.precision.device, "fp32"))
        metrics = evaluation.metrics("test", ("loss", "accuracy", "f1"))
        self.callback.on_epoch_end(metrics)
        self.outcome.confusion = evaluation.confusion
        self.outcome.add_metrics(metrics)
        self.outcome.manifest.write(self.paths.model)
        self.watch.console.log(f"test        {format_metrics(metrics)}")
