"""Features of a frozen backbone, computed once so that an epoch trains the head alone.

The head gets exactly the inputs that it would get inside the network in evaluation mode, which a frozen backbone is in.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from classifier.training.batches import Batch
from classifier.training.plan import MIRROR, draws
from classifier.training.precision import Precision
from classifier.vision.artifact import Classifier
from classifier.vision.models import head_name


def freeze_backbone(network: nn.Module) -> nn.Module:
    """Make all parameters but the head's untrainable, and return the head."""
    network.requires_grad_(False)
    return network.get_submodule(head_name(network)).requires_grad_(True)


@dataclass(frozen=True)
class FeatureLoader:
    """Loads batches of features from memory.

    Attributes:
        features: float32 (N, V, …), V views of each photo, of which an epoch gets one at random.
        labels: int64 (N,).
        pin: copy batches to page-locked memory, from which a GPU copies asynchronously.
    """

    features: Tensor
    labels: Tensor
    pin: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def iterate(self, batches: Iterable[np.ndarray], *, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield batches in the given order; ``seed`` and ``epoch`` determine the views."""
        num_views = self.features.shape[1]
        for indices in batches:
            chosen = torch.tensor(indices)
            views = torch.zeros_like(chosen)
            if num_views > 1:
                views = torch.from_numpy((draws(seed, epoch, indices)[:, MIRROR] * num_views).astype(np.int64))
            batch = Batch(self.features[chosen, views], self.labels[chosen])
            yield Batch(batch.inputs.pin_memory(), batch.labels.pin_memory()) if self.pin else batch


@torch.inference_mode()
def compute_features(
    classifier: Classifier, batches: Iterable[Batch], precision: Precision, *, mirrored: bool
) -> tuple[Tensor, Tensor]:
    """Compute the head's inputs for batches of pixels.

    Args:
        mirrored: compute a second view of each photo, mirrored.

    Returns:
        Features, float32 (N, V, …) with V = 2 if ``mirrored``, else 1; and labels, int64 (N,). Both are on the CPU.
    """
    classifier.eval()
    features, labels = [], []
    for batch in batches:
        pixels = batch.inputs.to(precision.device, non_blocking=True)
        views = (pixels, pixels.flip(-1)) if mirrored else (pixels,)
        features.append(torch.stack([_head_input(classifier, view, precision) for view in views], dim=1))
        labels.append(batch.labels)
    return torch.cat(features).clone(), torch.cat(labels).clone()


def _head_input(classifier: Classifier, pixels: Tensor, precision: Precision) -> Tensor:
    captured: list[Tensor] = []
    head = classifier.network.get_submodule(head_name(classifier.network))
    handle = head.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    try:
        with precision.autocast():
            classifier(pixels)
    finally:
        handle.remove()
    return captured[0].float().cpu()


@torch.inference_mode()
def is_head_last(classifier: Classifier, image_size: int) -> bool:
    """Whether the head's output is the network's. In SqueezeNet it is not: a pooling follows."""
    outputs: list[Tensor] = []
    head = classifier.network.get_submodule(head_name(classifier.network))
    handle = head.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        logits = classifier.eval()(torch.zeros(1, 3, image_size, image_size, device=classifier.mean.device))
    finally:
        handle.remove()
    return outputs[0].shape == logits.shape and torch.equal(outputs[0], logits)
