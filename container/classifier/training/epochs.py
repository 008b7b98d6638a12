"""The epochs of a training: train, validate, keep the best, stop early, test."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite

import numpy as np
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from classifier.callbacks import Callback, EpochResult, Mode, TrainingContext
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.metrics import METRICS, format_metrics
from classifier.contract.paths import Paths
from classifier.engine.base import remove_graphs
from classifier.errors import ConfigError, Stopped
from classifier.training.augmentation import PRESETS
from classifier.training.batches import ImageLoader, load_in_order
from classifier.training.checkpoints import Position
from classifier.training.console import Progress
from classifier.training.data import Data
from classifier.training.group import Group, share_tensors
from classifier.training.loop import EvaluationResult, Trainer, evaluate
from classifier.training.optimization import build_optimizer, build_schedule, class_weights, lr_at
from classifier.training.plan import EpochPlan, num_batches
from classifier.training.precision import Precision
from classifier.training.stages import LoaderConfig, Stage, Stages
from classifier.training.state import (
    BestEpoch,
    Checkpointing,
    TrainingState,
    load_trainer,
    share_checkpoint,
    unpack,
    weights_of,
)
from classifier.training.stopping import SharedStop
from classifier.training.sync_batchnorm import average_statistics
from classifier.vision import artifact
from classifier.vision.artifact import Classifier
from classifier.vision.calibration import calibrate, expected_calibration_error, obstacle, softmax
from classifier.vision.manifest import ModelManifest
from classifier.vision.models import build, load_tensors


def is_better(metrics: Mapping[str, float], than: Mapping[str, float] | None, metric: str) -> bool:
    """Whether an epoch's metrics are better than those of the best epoch so far.

    A tie in ``metric`` is decided by the validation loss. An epoch that diverged is never better.
    """
    if not isfinite(metrics["train:loss"]):
        return False
    if than is None:
        return True
    if metrics[metric] == than[metric]:
        metric = "validation:loss"
    return METRICS[metric].is_better(metrics[metric], than[metric])


@dataclass
class TrainingResult:
    """The outcome of a training so far.

    Attributes:
        device: the device and the precision, in words.
        source: where the initial weights came from, in words.
        last: the last complete epoch.
        kept: the best epoch with its weights, for checkpoints; None without them.
        evaluation: of ``judged_on``.
        uncalibrated: why the best epoch's probabilities are not calibrated; empty if they are.
        ended: why the training ended before its last epoch; empty if it did not.
    """

    manifest: ModelManifest
    data: Data
    device: str
    source: str
    last: EpochResult | None = None
    best: EpochResult | None = None
    kept: BestEpoch | None = field(default=None, repr=False)
    evaluation: EvaluationResult | None = field(default=None, repr=False)
    uncalibrated: str = ""
    ended: str = ""

    @property
    def num_epochs(self) -> int:
        """Number of complete epochs."""
        return self.last.number if self.last else 0

    @property
    def judged_on(self) -> str:
        """The channel of the confusion matrix: ``test``, or ``validation`` if nothing was tested."""
        return "test" if "test:accuracy" in self.manifest.metrics else "validation"

    @property
    def calibration_errors(self) -> tuple[float, float] | None:
        """Expected calibration errors of ``judged_on``, uncalibrated and calibrated; None without a calibration."""
        if self.evaluation is None or self.manifest.calibration is None:
            return None
        logits, labels = self.evaluation.logits.numpy(), self.evaluation.labels.numpy()
        before, after = (
            expected_calibration_error(softmax(logits, temperature), labels)
            for temperature in (1.0, self.manifest.temperature)
        )
        return before, after

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add metrics to the manifest, which goes into the artifact."""
        self.manifest = self.manifest.model_copy(update={"metrics": {**self.manifest.metrics, **metrics}})

    def calibrate(self, validation: EvaluationResult) -> None:
        """Fit the temperature of the manifest on the best epoch's validation photos, if they determine one."""
        logits, labels = validation.logits.numpy(), validation.labels.numpy()
        self.uncalibrated = obstacle(logits, labels)
        calibration = None if self.uncalibrated else calibrate(logits, labels)
        self.manifest = self.manifest.model_copy(update={"calibration": calibration})


@dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that a training needs, ready to run.

    Of several ranks each runs it. They differ in their shares of a batch, and in what they do within an agreement; what
    follows from the results is decided on rank 0.

    Attributes:
        checkpoints: on rank 0, where the job has a folder for them.
    """

    parameters: Hyperparameters
    paths: Paths
    data: Data
    loading: LoaderConfig
    classifier: Classifier
    stages: Stages
    precision: Precision
    progress: Progress
    callback: Callback
    result: TrainingResult
    stop: SharedStop
    checkpoints: Checkpointing | None = None

    @property
    def group(self) -> Group:
        """The ranks of the training."""
        return self.stop.group

    @cached_property
    def plan(self) -> EpochPlan:
        """The samples of each step."""
        shards = self.data.train.shard_order if isinstance(self.stages.train.loader, ImageLoader) else None
        return EpochPlan(len(self.data.train), self.parameters.batch_size, self.parameters.seed, shards)

    def run(self) -> TrainingResult:
        """Train, save the best epoch's weights, and test them. A stop keeps the best weights so far.

        With checkpoints, go on from the newest.
        """
        try:
            self._train()
            self._log_best()
            if self.data.test:
                self._test()
        except Stopped as stopped:
            self.result.ended = f"stopped by {stopped}"
            self.progress.console.log(f"stopped     by {stopped}; the best model so far is kept")
            if self.checkpoints:
                self.checkpoints.save_now(self.trainer, self._state())
            if self.result.best is None and self.group.is_main:
                self._save({})
        finally:
            self.callback.on_train_end()
            if self.checkpoints:
                self.checkpoints.close()
        return self.result

    def _train(self) -> None:
        state = self._resume()
        self.callback.on_train_begin(self._context(state))
        while not self._is_over() and self.result.num_epochs < self.parameters.epochs:
            self._run_epoch(self.result.num_epochs + 1)
            self._save_checkpoint(at_epoch_end=True)
        with self.stop.agreement():
            if self.checkpoints:
                self.checkpoints.save_now(self.trainer, self._state())

    def _run_epoch(self, number: int) -> None:
        started, first = time.perf_counter(), (number - 1) * self.plan.steps
        loss = self._train_epoch(number, self.trainer.step - first)
        if self.stages.train.is_shared and not self.parameters.sync_batchnorm:
            average_statistics(self.stages.trained, self.group)
        evaluation = self._evaluate(self.stages.validation, "validation", number, self.precision)
        metrics = {"train:loss": loss, **evaluation.metrics("validation", ("loss", "accuracy", "top5", "f1"))}
        epoch = EpochResult(
            number=number,
            metrics=metrics,
            lr=lr_at(self.trainer.schedule, first),
            seconds=time.perf_counter() - started,
            is_best=is_better(metrics, self._best_metrics, self.parameters.best_metric),
        )
        epoch = self.group.broadcast(epoch)
        with self.stop.agreement():
            self._finish_epoch(epoch, evaluation)

    def _resume(self) -> Mapping[str, bytes]:
        """Go on from the newest checkpoint, if there is one, and return the callbacks' state."""
        with self.stop.agreement():
            found = self.checkpoints.find(self.plan.steps) if self.checkpoints else None
        found = share_checkpoint(found, self.group)
        if found is None:
            return {}
        (checkpoint, header), trainer = found, self.trainer
        self.result.last, self.result.best = header.last, header.best
        callbacks = self._restore_best(unpack(*found)) if self.group.is_main else {}
        done = (checkpoint.position.epoch - 1) * self.plan.steps + checkpoint.position.step
        load_trainer(trainer, *found, step=done)
        trainer.schedule = build_schedule(trainer.optimizer, self.parameters, self.plan.steps, done=done)
        return callbacks

    def _restore_best(self, state: TrainingState) -> Mapping[str, bytes]:
        """Save the best model so far, since the artifact's folder is empty after a restart."""
        if state.best is not None:
            load_tensors(self.trainer.trained, state.best.weights)
            self._keep(state.best.result, state.best.evaluation)
        return state.callbacks

    def _state(self) -> TrainingState:
        result = self.result
        position = Position(result.num_epochs + 1, self.trainer.step - result.num_epochs * self.plan.steps)
        return TrainingState(position, result.last, result.kept, self.callback.state())

    def _save_checkpoint(self, *, at_epoch_end: bool = False) -> None:
        if self.checkpoints and self.checkpoints.is_due(at_epoch_end=at_epoch_end):
            with self.callback.phase("checkpoint"):
                self.checkpoints.save(self.trainer, self._state)

    def _log_best(self) -> None:
        if self.result.best is not None:
            self.progress.console.log(f"best        epoch {self.result.best.number}, by {self.parameters.best_metric}")
            self.progress.console.log(f"calibration {self._describe_calibration()}")

    def _describe_calibration(self) -> str:
        calibration = self.result.manifest.calibration
        if calibration is None:
            return f"skipped: {self.result.uncalibrated}"
        if calibration.temperature == 1:
            return (
                "not needed: the fitted temperature does not lower the expected calibration error of "
                f"{calibration.num_photos:,} validation photos, {calibration.ece_before:.2%}"
            )
        return (
            f"temperature {calibration.temperature:.3g}, fitted on {calibration.num_photos:,} validation photos; their "
            f"expected calibration error {calibration.ece_before:.2%} → {calibration.ece_after:.2%}"
        )

    @property
    def _best_metrics(self) -> Mapping[str, float] | None:
        return self.result.best.metrics if self.result.best else None

    @cached_property
    def trainer(self) -> Trainer:
        """The steps of the training."""
        parameters, stage = self.parameters, self.stages.train
        group = self.group if stage.is_shared else Group()
        optimizer = build_optimizer(self.stages.trained, parameters)
        weight = None
        if parameters.class_weights == "balanced":
            weight = class_weights(self.data.train.labels, len(self.data.classes))
        criterion = nn.CrossEntropyLoss(weight, label_smoothing=parameters.label_smoothing)
        return Trainer(
            module=stage.module if group.is_alone else self._averaging(stage.module),
            trained=self.stages.trained,
            optimizer=optimizer,
            schedule=build_schedule(optimizer, parameters, self.plan.steps),
            criterion=criterion.to(self.precision.device),
            precision=self.precision,
            augmentation=PRESETS[parameters.augmentation] if isinstance(stage.loader, ImageLoader) else None,
            seed=parameters.seed,
            group=group,
        )

    def _averaging(self, module: nn.Module) -> nn.Module:
        """Return a module that averages its gradients over the ranks while they are computed."""
        device = self.precision.device
        return DistributedDataParallel(
            module,
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )

    def _train_epoch(self, number: int, start: int) -> float:
        """Train from the step ``start`` of an epoch to its end, and return its mean loss."""
        if self.stages.train.is_shared:
            with self.stop.steps():
                return self._take_steps(number, start)
        with self.stop.agreement():
            # The others have nothing to do, and wait.
            return self._take_steps(number, start) if self.group.is_main else 0.0

    def _take_steps(self, number: int, start: int) -> float:
        self.callback.on_epoch_begin("train", number)
        with self.progress.track(f"epoch {number}/{self.parameters.epochs}", self.plan.steps - start) as advance:

            def after_step() -> None:
                self._save_checkpoint()
                advance()

            batches = self.stages.train.loader.iterate(
                self._shares(number, start), seed=self.parameters.seed, epoch=number
            )
            return self.trainer.train_epoch(
                batches,
                sizes=(len(batch) for batch in self.plan.batches(number, start)),
                advance=after_step,
                callback=self.callback,
                goes_on=start > 0,
            )

    def _shares(self, number: int, start: int) -> Iterator[np.ndarray]:
        group = self.trainer.group
        return (self.plan.share(one, group.rank, group.world_size) for one in self.plan.batches(number, start))

    def _context(self, state: Mapping[str, bytes]) -> TrainingContext:
        trainer = self.trainer
        return TrainingContext(
            network=self.classifier.network,
            module=self.stages.train.module,
            trained=trainer.trained,
            criterion=trainer.criterion,
            optimizer=trainer.optimizer,
            device=self.precision.device,
            num_epochs=self.parameters.epochs,
            class_names=[one.class_name for one in self.data.classes],
            photos=self.data.counts,
            steps_per_epoch=self.plan.steps,
            state=state,
        )

    def _evaluate(self, stage: Stage, mode: Mode, number: int, precision: Precision) -> EvaluationResult:
        self.callback.on_epoch_begin(mode, number)
        group = self.group if stage.is_shared else Group()
        num_samples = EpochPlan.share_sizes(len(stage.loader), group.world_size)[group.rank]
        batch_size = max(EpochPlan.share_sizes(self.parameters.batch_size, group.world_size))
        with self.stop.agreement(), self.progress.track(mode, num_batches(num_samples, batch_size)) as advance:
            scores = evaluate(
                stage.module,
                load_in_order(stage.loader, batch_size, group.rank, group.world_size),
                num_classes=len(self.data.classes),
                precision=precision,
                advance=advance,
                callback=self.callback,
            )
        return scores.result(group)

    def _finish_epoch(self, epoch: EpochResult, evaluation: EvaluationResult) -> None:
        self.result.last = epoch
        if epoch.is_best:
            self.result.best = epoch
            if self.group.is_main:
                with self.callback.phase("checkpoint"):
                    self._keep(epoch, evaluation)
        self.progress.console.log(
            f"epoch {epoch.number:>3}/{self.parameters.epochs}  {format_metrics(epoch.metrics)}  "
            f"lr={epoch.lr:.2e}  {epoch.seconds:.2f} s{'  best' if epoch.is_best else ''}"
        )
        self.callback.on_epoch_end(epoch)

    def _keep(self, epoch: EpochResult, evaluation: EvaluationResult) -> None:
        """Save the present weights, which are those of the best epoch so far."""
        self.result.best, self.result.evaluation = epoch, evaluation
        self.result.calibrate(evaluation)
        if self.checkpoints:
            self.result.kept = BestEpoch(epoch, evaluation, weights_of(self.stages.trained))
        self._save(epoch.metrics)

    def _save(self, metrics: Mapping[str, float]) -> None:
        self.result.add_metrics(metrics)
        remove_graphs(self.paths.model)
        artifact.save(self.paths.model, self.classifier.network, self.result.manifest)

    def _is_over(self) -> bool:
        """Whether the last epoch diverged, or the epochs without improvement have used up the patience.

        Raises:
            ConfigError: it diverged in the first epoch, so that there is no model.
        """
        best, patience, log = self.result.best, self.parameters.early_stopping_patience, self.progress.console.log
        epoch = self.result.last
        if epoch is None:
            return False
        if not isfinite(epoch.metrics["train:loss"]):
            diverged = f"training diverged in epoch {epoch.number}, its loss is {epoch.metrics['train:loss']}"
            advice = f"lower lr (now {self.parameters.lr:g}) or add warmup_epochs"
            if best is None:
                raise ConfigError(f"{diverged}: {advice}")
            self.result.ended = f"{diverged}: {advice}"
            log(f"warning: {diverged}, and ends here: {advice}")
            return True
        if patience and best is not None and epoch.number - best.number >= patience:
            self.result.ended = f"{patience} epochs without a better {self.parameters.best_metric}"
            log(f"stopped     early: {self.result.ended}")
            return True
        return False

    def _test(self) -> None:
        """Test the saved weights, read back and in full precision: the metrics are those of the artifact."""
        stage = Stage(self._load_saved(), self.loading.images(self.data.test))
        number = self.result.best.number if self.result.best else 0
        evaluation = self._evaluate(stage, "test", number, self.precision.strict())
        metrics = evaluation.metrics("test", ("loss", "accuracy", "f1"))
        self.result.evaluation = evaluation
        self.result.add_metrics(metrics)
        self.progress.console.log(f"test        {format_metrics(metrics)}")
        with self.stop.agreement():
            if self.group.is_main:
                self.result.manifest.write(self.paths.model)
            self.callback.on_test_end(metrics)

    def _load_saved(self) -> Classifier:
        """Return the model in the artifact, which only rank 0 can read, on every rank."""
        manifest, device = self.result.manifest, self.precision.device
        with self.stop.agreement():
            if self.group.is_main:
                saved, _ = artifact.load(self.paths.model, device)
            else:
                size, num_classes = manifest.preprocessing.crop, len(manifest.classes)
                network = build(manifest.architecture, num_classes=num_classes, image_size=size)
                saved = Classifier(network, manifest.preprocessing).to(device).eval()
        share_tensors(saved.network, self.group)
        return saved
