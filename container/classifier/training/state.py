"""The state of a training: what a checkpoint holds, and whether another training may go on from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from classifier.callbacks import EpochResult
from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
from classifier.training.checkpoints import (
    Checkpoint,
    CheckpointFolder,
    CheckpointSaver,
    Position,
    below,
    from_bytes,
    to_bytes,
    with_prefix,
)
from classifier.training.console import Console
from classifier.training.group import Group
from classifier.training.loop import EvaluationResult, Trainer
from classifier.vision.models import load_tensors

# These change neither the weights nor which of them are best.
_FREE = frozenset(
    (
        "num_workers",
        "ranks_per_host",
        "checkpoint_interval_s",
        "debug",
        "debug_stop",
        "profile",
        "optimize_for_cpu",
        "cpu_engine",
        "max_bad_images",
    )
)
_TRAINED = ("model/", "optimizer/", "loss")  # how the names of the tensors begin that every rank needs


class Identity(BaseModel):
    """What a training depends on, so that only an equal one resumes from its checkpoints.

    Attributes:
        classes: folder names, in the order of the logits.
        data: fingerprint of the photos.
        weights: digest of the starting weights; empty from scratch, where the seed determines them.
    """

    model_config = ConfigDict(frozen=True)

    hyperparameters: dict[str, Any]
    classes: tuple[str, ...]
    data: str
    weights: str

    def check(self, saved: "Identity", where: str) -> None:
        """Check that a training with this identity may go on from a checkpoint with another; more epochs may follow.

        Args:
            where: the checkpoint's file, for the message.

        Raises:
            ConfigError: the message names everything that changed.
        """
        # A checkpoint from before a hyperparameter existed was trained with what is its default now.
        before, now = {**Hyperparameters().model_dump(), **saved.hyperparameters}, self.hyperparameters
        changed = [
            f"{name} was {before.get(name)} and is {now[name]}"
            for name in now
            if name not in _FREE and before.get(name) != now[name]
            if not (name == "epochs" and now[name] > before[name])
        ]
        for name, is_other in {
            "the classes": saved.classes != self.classes,
            "the photos": saved.data != self.data,
            "the starting weights": saved.weights != self.weights,
        }.items():
            changed += [f"{name} changed"] if is_other else []
        if changed:
            raise ConfigError(
                f"{where} is of another training: {'; '.join(changed)}. To go on from it, restore what it was trained "
                "with; to start over, choose another checkpoint folder or empty this one"
            )


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch so far: its results, and its weights on the CPU, by name in the trained module."""

    result: EpochResult
    evaluation: EvaluationResult
    weights: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class TrainingState:
    """A position and everything that leads to the same future as the training that was there.

    Attributes:
        last: the last complete epoch.
        callbacks: what the callbacks need in order to go on.
    """

    position: Position
    last: EpochResult | None
    best: BestEpoch | None
    callbacks: Mapping[str, bytes]


class _Scores(BaseModel):
    loss: float
    accuracy: float
    top5: float
    f1: float


class Header(BaseModel):
    """The JSON in a checkpoint.

    Attributes:
        versions: of the libraries, and the arithmetic.
        count: number of samples in the sum of the present epoch's losses.
        scaler: state of the gradient scaler.
        scores: of the best epoch.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    identity: Identity
    versions: dict[str, str]
    count: int
    scaler: dict[str, float]
    last: EpochResult | None
    best: EpochResult | None
    scores: _Scores | None


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's tensors on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def pack(trainer: Trainer, state: TrainingState, identity: Identity, versions: Mapping[str, str]) -> Checkpoint:
    """Return a checkpoint, whose tensors are copies on their device. Nothing waits for the device."""
    best = state.best
    tensors = {
        **with_prefix("model", trainer.trained.state_dict()),
        **with_prefix("optimizer", _optimizer_tensors(trainer)),
        "loss": trainer.loss,
    }
    tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    tensors |= with_prefix("callbacks", {name: from_bytes(content) for name, content in state.callbacks.items()})
    if best is not None:
        evaluation = best.evaluation
        tensors |= with_prefix("best", best.weights)
        tensors |= {f"validation/{name}": getattr(evaluation, name) for name in ("confusion", "logits", "labels")}
    header = Header(
        identity=identity,
        versions=dict(versions),
        count=trainer.count,
        scaler=trainer.scaler.state_dict(),
        last=state.last,
        best=best.result if best else None,
        scores=_Scores.model_validate(best.evaluation, from_attributes=True) if best else None,
    )
    return Checkpoint(state.position, header.model_dump_json(), tensors)


def unpack(checkpoint: Checkpoint, header: Header) -> TrainingState:
    """Return the state in a checkpoint."""
    best = None
    if header.best is not None and header.scores is not None:
        scores, tensors = header.scores, below("validation", checkpoint.tensors)
        evaluation = EvaluationResult(scores.loss, scores.accuracy, scores.top5, scores.f1, **tensors)
        best = BestEpoch(header.best, evaluation, below("best", checkpoint.tensors))
    callbacks = {name: to_bytes(content) for name, content in below("callbacks", checkpoint.tensors).items()}
    return TrainingState(checkpoint.position, header.last, best, callbacks)


def share_checkpoint(found: tuple[Checkpoint, Header] | None, group: Group) -> tuple[Checkpoint, Header] | None:
    """Return rank 0's checkpoint on every rank, since other hosts may have none; to the others goes what is trained."""
    if group.is_alone:
        return found
    sent = group.broadcast(None if found is None else (found[0].position, found[0].header))
    if sent is None:
        return None
    given = {} if found is None else found[0].tensors
    trained = {name: tensor for name, tensor in given.items() if name.startswith(_TRAINED)}
    tensors = group.broadcast_tensors(trained)
    return found or (Checkpoint(*sent, tensors), Header.model_validate_json(sent[1]))


def load_trainer(trainer: Trainer, checkpoint: Checkpoint, header: Header, *, step: int) -> None:
    """Load module, optimizer, scaler and running sums of a checkpoint into a trainer; not the schedule.

    Args:
        step: number of steps before the checkpoint.
    """
    load_tensors(trainer.trained, below("model", checkpoint.tensors))
    _load_optimizer(trainer, below("optimizer", checkpoint.tensors))
    if header.scaler:
        trainer.scaler.load_state_dict(header.scaler)
    trainer.step = step
    trainer.loss = checkpoint.tensors["loss"].to(trainer.loss.device)
    trainer.count = header.count


def _optimizer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in trainer.trained.named_parameters()
        for key, value in trainer.optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(trainer.trained.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        # In the parameter's own memory layout, which the fused kernels take for granted.
        is_like = value.shape == parameter.shape
        target = torch.empty_like(parameter) if is_like else torch.empty_like(value, device=parameter.device)
        trainer.optimizer.state[parameter][key] = target.detach().copy_(value)


class Checkpointing:
    """The checkpoints of one training: finding the newest, and saving the state when it is due."""

    def __init__(
        self,
        folder: CheckpointFolder,
        saver: CheckpointSaver,
        identity: Identity,
        versions: Mapping[str, str],
        console: Console,
    ) -> None:
        self._folder, self._saver, self._console = folder, saver, console
        self._identity, self._versions = identity, versions
        self._saved: Position | None = None

    def find(self, steps_per_epoch: int) -> tuple[Checkpoint, Header] | None:
        """Find the newest whole checkpoint, and report where the training resumes.

        Raises:
            ConfigError: it is of another training.
        """
        checkpoint = self._folder.read_newest(Header.model_validate_json)
        if checkpoint is None:
            return None
        header, position = Header.model_validate_json(checkpoint.header), checkpoint.position
        self._identity.check(header.identity, position.file_name)
        for name, version in self._versions.items():
            if header.versions.get(name) != version:
                self._console.warn(
                    f"{position.file_name} was written with {name} {header.versions.get(name)}, and this is {version}: "
                    "the model will differ from that of an uninterrupted training"
                )
        before, now = (one.hyperparameters["epochs"] for one in (header.identity, self._identity))
        if before != now:
            self._console.log(f"epochs      {before} → {now}: the learning-rate schedule is stretched")
        where = f"at epoch {position.epoch}, step {position.step} of {steps_per_epoch}"
        if position.epoch > now:
            where = "after the last epoch"
        self._console.log(f"resumed     {where}, from {position.file_name}")
        self._saved = position
        return checkpoint, header

    def is_due(self, *, at_epoch_end: bool) -> bool:
        """Whether the state should be saved now."""
        return self._saver.is_due(at_epoch_end=at_epoch_end)

    def save(self, trainer: Trainer, state: Callable[[], TrainingState]) -> None:
        """Save in the background."""
        self._saver.save(lambda: self._pack(trainer, state()))

    def save_now(self, trainer: Trainer, state: TrainingState) -> None:
        """Save and wait until it is written, unless the same position was saved before."""
        if state.position == self._saved:
            self._saver.wait()
        else:
            self._saver.save_and_wait(lambda: self._pack(trainer, state))

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        self._saver.close()

    def _pack(self, trainer: Trainer, state: TrainingState) -> Checkpoint:
        self._saved = state.position
        return pack(trainer, state, self._identity, self._versions)
