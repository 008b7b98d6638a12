"""What ranks do in the tests of a group. Each scenario is a function of the group; a group of one does the same."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from classifier.callbacks import Callback
from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import Stopped
from classifier.training.batches import load_in_order
from classifier.training.checkpoints import Position
from classifier.training.console import StopSignal
from classifier.training.features import FeatureLoader
from classifier.training.group import Group, share_tensors
from classifier.training.loop import EvaluationResult, Trainer, evaluate
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.plan import EpochPlan
from classifier.training.precision import Precision
from classifier.training.state import Header, Identity, TrainingState, load_trainer, pack, share_checkpoint
from classifier.training.stopping import RankCallbacks, SharedStop
from classifier.training.sync_batchnorm import average_statistics, synchronize_batchnorm

CPU = Precision(torch.device("cpu"), "fp32")
NUM_CLASSES, NUM_SAMPLES = 3, 41
STOPPED_AT = 4  # steps


def samples() -> FeatureLoader:
    """Photos whose labels can be learnt, (41, 1, 3, 12, 12)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator)
    noise = torch.randn(NUM_SAMPLES, 1, 3, 12, 12, generator=generator)
    return FeatureLoader(noise + labels.view(-1, 1, 1, 1, 1) - 1, labels)


def network() -> nn.Module:
    torch.manual_seed(1)
    # Without biases before the normalization: their gradients are rounding errors, which AdamW would enlarge.
    layers = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def trainer_of(module: nn.Module, group: Group) -> Trainer:
    parameters = Hyperparameters.parse({"epochs": 2, "lr": 1e-3})
    optimizer = build_optimizer(module, parameters)
    criterion = nn.CrossEntropyLoss(torch.tensor([0.5, 1.0, 2.5]), label_smoothing=0.1)
    averaging = module if group.is_alone else DistributedDataParallel(module, broadcast_buffers=False)
    schedule = build_schedule(optimizer, parameters, 6)
    return Trainer(averaging, module, optimizer, schedule, criterion, CPU, None, seed=3, group=group)


@dataclass
class Recorder(Callback):
    """What callbacks find in each step: logits, labels, loss, gradients."""

    module: nn.Module
    steps: list[tuple[Tensor, ...]] = field(default_factory=list)

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        self.steps.append((logits.clone(), labels.clone(), loss.clone()))

    def on_backward_end(self) -> None:
        gradients = [one.grad.flatten() for one in self.module.parameters() if one.grad is not None]
        self.steps[-1] += (torch.cat(gradients),)


def training(group: Group) -> dict[str, Any]:
    """Twelve steps with batches of six and seven."""
    return _train(group, batch_size=7, num_steps=12)


def tiny_batches(group: Group) -> dict[str, Any]:
    """Four steps with batches of two, of which some of four ranks have none."""
    return _train(group, batch_size=2, num_steps=4)


def own_statistics(group: Group) -> dict[str, Any]:
    """Steps whose batches each rank normalizes by its own photos."""
    return _train(group, batch_size=16, num_steps=4, sync=False)


def _train(group: Group, batch_size: int, num_steps: int, *, sync: bool = True) -> dict[str, Any]:
    loader, module = samples(), network()
    if sync and not group.is_alone:
        synchronize_batchnorm(module, group)
    trainer, recorder = trainer_of(module, group), Recorder(module)
    plan = EpochPlan(NUM_SAMPLES, batch_size, seed=5)
    whole = [one for epoch in (1, 2, 3) for one in plan.batches(epoch)][:num_steps]
    shares = [plan.share(one, group.rank, group.world_size) for one in whole]
    loss = trainer.train_epoch(
        loader.iterate(shares, seed=0, epoch=1),
        sizes=[len(one) for one in whole],
        advance=lambda: None,
        callback=recorder,
    )
    if not sync:
        average_statistics(module, group)
    return {"state": module.state_dict(), "steps": recorder.steps, "loss": loss, "count": trainer.count}


def resumed(group: Group) -> dict[str, Tensor]:
    """The twelve steps of ``training``, interrupted after six: only rank 0 has the checkpoint."""
    plan, loader, parameters = EpochPlan(NUM_SAMPLES, 7, seed=5), samples(), Hyperparameters.parse({"epochs": 2})
    whole = [one for epoch in (1, 2) for one in plan.batches(epoch)][:12]
    found, module = None, network()
    for half in (whole[:6], whole[6:]):
        module = network()
        if not group.is_alone:
            synchronize_batchnorm(module, group)
        trainer = trainer_of(module, group)
        shared = share_checkpoint(found, group)
        if shared is not None:
            load_trainer(trainer, *shared, step=6)
            trainer.schedule = build_schedule(trainer.optimizer, parameters, 6, done=6)
        shares = [plan.share(one, group.rank, group.world_size) for one in half]
        batches = loader.iterate(shares, seed=0, epoch=1)
        trainer.train_epoch(batches, sizes=[len(one) for one in half], advance=lambda: None)
        identity = Identity(hyperparameters={}, classes=(), data="", weights="")
        checkpoint = pack(trainer, TrainingState(Position(1, 6), None, None, {}), identity, {})
        found = (checkpoint, Header.model_validate_json(checkpoint.header)) if group.is_main else None
    return module.state_dict()


def evaluation(group: Group) -> EvaluationResult:
    """Metrics of 41 photos, a number that no group of several ranks divides evenly."""
    scores = evaluate(
        network(),
        load_in_order(samples(), 5, group.rank, group.world_size),
        num_classes=NUM_CLASSES,
        precision=CPU,
        advance=lambda: None,
    )
    return scores.result(group)


def exchanges(group: Group) -> dict[str, Any]:
    """Values and tensors of all types and sizes, those without elements too."""
    rank = group.rank
    tensors = {
        "half": torch.full((2, 3), rank + 1, dtype=torch.bfloat16),
        "scalar": torch.tensor(rank + 5),
        "none": torch.zeros(0, 4),
    }
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, rank + 1.0)
    share_tensors(module, group)
    total = torch.tensor([rank + 1.0, 0.25])
    group.sum([total])
    return {
        "broadcast": group.broadcast({"from": rank}),
        "tensors": group.broadcast_tensors(tensors if group.is_main else {}),
        "weight": module.weight.detach(),
        "gathered": group.gather(f"from {rank}"),
        "rows": group.gather_rows(torch.full((rank, 2), rank, dtype=torch.int64)),
        "sum": total,
        "any": [group.ask_any(rank == asked)() for asked in (0, group.world_size - 1, group.world_size)],
    }


def stop_in_steps(group: Group) -> tuple[int, str]:
    """The last rank gets a signal in its fourth step: at which step each rank stops, and why."""
    signal = StopSignal()
    stop, done = SharedStop(signal, group, "in steps"), 0
    try:
        with stop.steps():
            for done in range(1, 100):
                if done == STOPPED_AT and group.rank == group.world_size - 1:
                    signal.received = "SIGTERM"
                stop.check()
    except Stopped as stopped:
        return done, str(stopped)
    return 0, ""


def stop_after_the_last_step(group: Group) -> str:
    """A stop that comes with the last step ends what comes after it."""
    stop = SharedStop(StopSignal(), group, "after steps")
    with stop.steps():
        stop.check()
        if group.rank == group.world_size - 1:
            stop.request("SIGINT")
        stop.check()
    return _stopped_in_agreement(stop, lambda: None)


def stop_in_an_agreement(group: Group) -> str:
    """One rank is stopped in its own work, for which the others are waiting or which they look up from."""

    def work() -> None:
        if group.rank == group.world_size - 1:
            raise Stopped("a rule")

    return _stopped_in_agreement(SharedStop(StopSignal(), group, "in an agreement"), work)


def stop_by_a_callback(group: Group) -> tuple[int, str]:
    """A callback of rank 0 raises Stopped within a step, which all ranks finish."""

    class Rule(Callback):
        def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:  # noqa: ARG002
            if trainer.step == STOPPED_AT:
                raise Stopped("a rule")

    trainer = trainer_of(network(), group)
    stop = SharedStop(StopSignal(), group, "by a callback")
    callback = RankCallbacks(Rule() if group.is_main else Callback(), stop, print)
    plan = EpochPlan(NUM_SAMPLES, 7, seed=5)
    shares = [plan.share(one, group.rank, group.world_size) for epoch in (1, 2, 3) for one in plan.batches(epoch)]
    sizes = [len(one) for epoch in (1, 2, 3) for one in plan.batches(epoch)]
    try:
        with stop.steps():
            batches = samples().iterate(shares, seed=0, epoch=1)
            trainer.train_epoch(batches, sizes=sizes, advance=stop.check, callback=callback)
    except Stopped as stopped:
        return trainer.step, str(stopped)
    return 0, ""


def _stopped_in_agreement(stop: SharedStop, work: Any) -> str:
    try:
        with stop.agreement():
            work()
    except Stopped as stopped:
        return str(stopped)
    return ""


def dropout(group: Group) -> Tensor:
    """Which of a step's activations dropout keeps."""
    trainer = trainer_of(nn.Sequential(nn.Flatten(), nn.Linear(432, NUM_CLASSES)), group)
    trainer._seed_generators()
    return torch.rand(8)
