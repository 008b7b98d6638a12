"""Facts of a training that no tensor holds, beside its saved tensors: photos, hyperparameters, initial weights."""

import csv
from collections.abc import Iterable, Mapping
from math import log
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from classifier.callbacks import TrainingContext

FACTS_FILE = "facts.json"
# Below this root mean square a tensor is zero by design: zero-initialized heads, ConvNeXt's layer scale.
MIN_RMS = 1e-5
NORMALIZED = "a model with normalization (resnet18)"  # a part of several rules' advice
_NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class Facts(BaseModel):
    """What is known of a training besides its tensors. Empty for tensors that other programs saved.

    Attributes:
        class_names: in the order of the logits.
        photos: numbers of photos by channel and class.
        num_leaked: validation photos with the same bytes as a training photo.
        matrices: names of the trained weights that multiply their input: of linear and convolutional layers.
        gain: median over these of the initial root mean square times sqrt(fan_in / 2), 1 for He's initialization.
        has_normalization: whether the network normalizes between its layers.
        confusion: (true class, predicted class, photos) of the test, else of the best epoch's validation.
        judged_on: the channel of ``confusion``.
    """

    model_config = ConfigDict(frozen=True)

    hyperparameters: dict[str, Any] = {}
    class_names: tuple[str, ...] = ()
    photos: dict[str, tuple[int, ...]] = {}
    num_leaked: int = 0
    matrices: tuple[str, ...] = ()
    gain: float | None = None
    has_normalization: bool = False
    confusion: tuple[tuple[int, int, int], ...] = ()
    judged_on: str = "validation"

    @property
    def chance_loss(self) -> float | None:
        """Cross-entropy of equal probabilities, ln(classes); None if the classes are unknown."""
        return log(len(self.class_names)) if len(self.class_names) > 1 else None

    @property
    def settings(self) -> dict[str, Any]:
        """The hyperparameters, and what else an advice may propose that is so already."""
        return self.hyperparameters | ({NORMALIZED: True} if self.has_normalization else {})

    def write(self, folder: Path) -> None:
        """Write the facts to the folder of the tensors."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FACTS_FILE).write_text(self.model_dump_json() + "\n", encoding="utf-8")


def collect(context: TrainingContext, hyperparameters: Mapping[str, Any], prefix: str, output: Path) -> Facts:
    """Collect the facts that are known before the first step.

    Args:
        prefix: of the tensors' names.
        output: the job's ``output/data``, where the scan of the photos left ``leaks.csv``.
    """
    weights = dict(_matrices(context.network, prefix))
    gains = sorted(_gain(weight) for weight in weights.values())
    return Facts(
        hyperparameters=dict(hyperparameters),
        class_names=tuple(context.class_names),
        photos={channel: tuple(counts) for channel, counts in context.photos.items()},
        num_leaked=_num_leaked(output / "leaks.csv"),
        matrices=tuple(weights),
        gain=gains[len(gains) // 2] if gains else None,
        has_normalization=any(isinstance(module, _NORMALIZATIONS) for module in context.network.modules()),
    )


def _matrices(network: nn.Module, prefix: str) -> Iterable[tuple[str, torch.Tensor]]:
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear | nn.Conv2d) and isinstance(weight, torch.Tensor) and weight.requires_grad:
            yield f"{prefix}{name}.weight" if name else f"{prefix}weight", weight


@torch.no_grad()
def _gain(weight: torch.Tensor) -> float:
    fan_in = weight[0].numel()
    return float(torch.linalg.vector_norm(weight.float()) / weight.numel() ** 0.5 * (fan_in / 2) ** 0.5)


def _num_leaked(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        pairs = [(row["channel"], row["also_in_channel"]) for row in csv.DictReader(file)]
    return sum(set(pair) == {"train", "validation"} for pair in pairs)
