"""Training steps and evaluation metrics."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from classifier.contract.hyperparameters import Hyperparameters
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch, ImageLoader, load_in_order
from classifier.training.features import freeze_backbone
from classifier.training.loop import EvaluationResult, Trainer, evaluate
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.precision import Precision
from classifier.training.samples import SampleTable
from classifier.vision.artifact import Classifier
from classifier.vision.models import build
from classifier.vision.preprocessing import Preprocessing
from support.marks import GATE

PREPROCESSING = Preprocessing(resize=36, crop=32)
FULL = Precision(torch.device("cpu"), "fp32")


def classifier_of(architecture: str = "resnet18") -> Classifier:
    torch.manual_seed(0)
    return Classifier(build(architecture, num_classes=3, image_size=32), PREPROCESSING)


def trainer_of(
    module: nn.Module,
    trained: nn.Module | None = None,
    *,
    epochs: int = 1,
    precision: Precision = FULL,
    weight: Tensor | None = None,
    preset: str = "none",
) -> Trainer:
    parameters = Hyperparameters.parse({"epochs": epochs, "lr": 3e-3, "scheduler": "constant", "weight_decay": 0})
    optimizer = build_optimizer(trained or module, parameters)
    return Trainer(
        module=module,
        trained=trained or module,
        optimizer=optimizer,
        schedule=build_schedule(optimizer, parameters, 10),
        criterion=nn.CrossEntropyLoss(weight),
        precision=precision,
        augmentation=PRESETS[preset],
    )


def train(trainer: Trainer, batches: list[Batch], epochs: int) -> list[float]:
    return [trainer.train_epoch(batches, advance=lambda: None) for _ in range(epochs)]


def evaluate_all(module: nn.Module, batches: list[Batch], num_classes: int = 3) -> EvaluationResult:
    return evaluate(module, batches, num_classes=num_classes, precision=FULL, advance=lambda: None).result()


@pytest.fixture
def batches(samples: SampleTable) -> list[Batch]:
    """Eight photos of three classes, in two batches."""
    loader = ImageLoader(samples[::3], PREPROCESSING, PRESETS["strong"])
    return list(load_in_order(loader, 4))


def set_running_averages(module: nn.Module, batch: Batch) -> None:
    """Set batch normalization's running averages to those of a batch, since a few steps are not enough for them."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    with torch.no_grad():
        module(batch.inputs)


@pytest.mark.parametrize("name", ["fp32", pytest.param("bf16", marks=GATE)])
def test_eight_images_can_be_memorized(samples: SampleTable, name: str) -> None:
    classifier = classifier_of()
    batches = list(load_in_order(ImageLoader(samples[::3], PREPROCESSING), 8))
    losses = train(trainer_of(classifier, precision=Precision(FULL.device, name)), batches, 12)
    assert losses[0] > 0.5
    assert losses[-1] < 0.1
    set_running_averages(classifier, *batches)
    assert evaluate_all(classifier, batches).accuracy == 1


@pytest.mark.parametrize("preset", [pytest.param("none", marks=GATE), "strong"])
def test_the_same_seed_gives_the_same_weights(batches: list[Batch], preset: str) -> None:
    runs = []
    for _ in range(2):
        classifier = classifier_of()
        train(trainer_of(classifier, preset=preset), batches, 2)
        runs.append(classifier.state_dict())
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_dropout_depends_on_the_seed_and_the_step_alone() -> None:
    def losses(seed: int, drawn_before: int) -> list[float]:
        torch.manual_seed(drawn_before)
        linear = nn.Linear(16, 2, bias=False)
        module = nn.Sequential(nn.Dropout(0.5), linear)
        nn.init.ones_(linear.weight)
        trainer = trainer_of(module)
        trainer.seed = seed
        batch = Batch(torch.arange(64.0).view(4, 16), torch.tensor([0, 1, 0, 1]))
        outputs = list[Tensor]()
        module[0].register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
        trainer.train_epoch([batch] * 3, advance=lambda: torch.rand(drawn_before))
        return [output.sum().item() for output in outputs]

    first = losses(seed=0, drawn_before=1)
    assert losses(seed=0, drawn_before=2) == first
    assert losses(seed=1, drawn_before=1) != first
    assert len(set(first)) == 3


def test_frozen_parameters_do_not_change(batches: list[Batch]) -> None:
    classifier = classifier_of("mobilenet_v3_small")
    head = freeze_backbone(classifier.network)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    train(trainer_of(classifier, head), batches, 2)
    changed = {name for name, value in classifier.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.classifier.3.weight", "network.classifier.3.bias"}


def test_all_parameters_change_without_freezing(batches: list[Batch]) -> None:
    classifier = classifier_of()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    train(trainer_of(classifier), batches, 1)
    assert all(not torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def linear_batch() -> Batch:
    """Two classes with the same inputs, three times as many samples of the first."""
    return Batch(torch.ones(8, 1), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))


def test_class_weights_decide_between_indistinguishable_classes() -> None:
    chosen = []
    for weight in (None, torch.tensor([1.0, 9.0])):
        torch.manual_seed(0)
        module = nn.Linear(1, 2)
        trainer = trainer_of(module, weight=weight, epochs=1)
        trainer.optimizer.param_groups[0]["lr"] = trainer.optimizer.param_groups[1]["lr"] = 0.1
        trainer.schedule.base_lrs = [0.1, 0.1]
        train(trainer, [linear_batch()] * 40, 1)
        chosen.append(module(torch.ones(1, 1)).argmax().item())
    assert chosen == [0, 1]


def test_the_loss_of_an_epoch_is_the_mean_over_samples() -> None:
    module = nn.Linear(1, 2)
    nn.init.zeros_(module.weight)
    module.bias.data = torch.tensor([1.0, 0.0])
    trainer = trainer_of(module)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    trainer.schedule.base_lrs = [0.0, 0.0]
    sizes = Batch(torch.ones(3, 1), torch.tensor([0, 0, 0])), Batch(torch.ones(1, 1), torch.tensor([1]))
    right, wrong = torch.nn.functional.softplus(torch.tensor([-1.0, 1.0])).tolist()
    assert train(trainer, list(sizes), 1)[0] == pytest.approx((3 * right + wrong) / 4)


def test_every_batch_advances_the_progress_and_the_schedule(batches: list[Batch]) -> None:
    trainer = trainer_of(classifier_of("mobilenet_v3_small"))
    steps: list[None] = []
    trainer.train_epoch(batches, advance=lambda: steps.append(None))
    assert len(steps) == trainer.schedule.last_epoch == 2


class Fixed(nn.Module):
    """Returns its inputs as logits."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def logits_for(predicted: list[int], num_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float()


def test_metrics_equal_those_computed_by_hand() -> None:
    predicted, true = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    batches = [Batch(logits_for(predicted[part], 3), torch.tensor(true[part])) for part in (slice(4), slice(4, 6))]
    found = evaluate_all(Fixed(), batches)
    assert torch.equal(found.logits, logits_for(predicted, 3))
    assert found.labels.tolist() == true
    assert found.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 2]]
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.f1 == pytest.approx((1 / 2 + 2 / 3 + 4 / 5) / 3)
    assert found.top5 == 1
    right, wrong = -torch.log_softmax(torch.tensor([1.0, 0.0, 0.0]), 0)[:2]
    assert found.loss == pytest.approx((4 * right + 2 * wrong).item() / 6)


def test_f1_leaves_out_classes_that_are_neither_labels_nor_predictions() -> None:
    # Of five classes, 3 is only predicted, which counts as an F1 of zero, and 4 does not occur.
    batch = Batch(logits_for([0, 1, 3, 2], 5), torch.tensor([0, 1, 1, 2]))
    assert evaluate_all(Fixed(), [batch], num_classes=5).f1 == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)


def test_top5_counts_the_five_highest_logits() -> None:
    logits = torch.arange(10.0).flip(0).repeat(4, 1)  # class 0 first, then 1, 2, …
    found = evaluate_all(Fixed(), [Batch(logits, torch.tensor([0, 4, 5, 9]))], num_classes=10)
    assert found.top5 == pytest.approx(0.5)
    assert found.accuracy == pytest.approx(0.25)


@pytest.mark.parametrize("num_classes", [3, 12])
def test_metrics_equal_those_of_torchmetrics(num_classes: int) -> None:
    # Imported here: it takes every worker of a test run seconds to import.
    from torchmetrics.functional import classification  # noqa: PLC0415

    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.randint(0, num_classes - 1, (100,), generator=generator)  # the last class does not occur
    logits = torch.randn(100, num_classes, generator=generator) + 2 * logits_for(labels.tolist(), num_classes)
    logits[:, -1] -= 9
    logits[0] = torch.nan
    parts = zip(logits.split(32), labels.split(32), strict=True)
    found = evaluate_all(Fixed(), [Batch(*part) for part in parts], num_classes)
    accuracy = partial(classification.multiclass_accuracy, logits, labels, num_classes, average="micro")
    assert found.accuracy == pytest.approx(accuracy().item())
    assert found.top5 == pytest.approx(accuracy(top_k=min(5, num_classes)).item())
    assert found.f1 == pytest.approx(classification.multiclass_f1_score(logits, labels, num_classes).item())
    assert found.confusion.equal(classification.multiclass_confusion_matrix(logits, labels, num_classes))


def test_two_classes_are_evaluated() -> None:
    found = evaluate_all(Fixed(), [Batch(logits_for([0, 1, 1], 2), torch.tensor([0, 1, 0]))], num_classes=2)
    assert (found.accuracy, found.top5) == (pytest.approx(2 / 3), 1)
    assert found.confusion.tolist() == [[1, 1], [0, 1]]


def test_metrics_are_prefixed_with_their_channel() -> None:
    evaluation = EvaluationResult(
        0.1, 0.2, 0.3, 0.4, torch.zeros(2, 2), logits=torch.zeros(0, 2), labels=torch.zeros(0)
    )
    assert evaluation.metrics("test", ("loss", "f1")) == {"test:loss": 0.1, "test:f1": 0.4}


def test_evaluation_does_not_change_the_model(batches: list[Batch]) -> None:
    classifier = classifier_of()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    first, second = evaluate_all(classifier, batches), evaluate_all(classifier, batches)
    assert first.loss == second.loss
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
