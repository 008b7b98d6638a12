"""Cached features of a frozen backbone: the head on them equals the whole network."""

import numpy as np
import pytest
import torch

from classifier.training.batches import Batch, ImageLoader, load_in_order
from classifier.training.features import FeatureLoader, compute_features, freeze_backbone, is_head_last
from classifier.training.plan import EpochPlan
from classifier.training.precision import Precision
from classifier.training.samples import SampleTable
from classifier.vision.artifact import Classifier
from classifier.vision.models import build, head_name
from classifier.vision.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(resize=36, crop=32)
FULL = Precision(torch.device("cpu"), "fp32")


def classifier_of(architecture: str) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build(architecture, num_classes=3, image_size=32), PREPROCESSING)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "mobilenet_v2", "squeezenet1_1"])
def test_a_frozen_backbone_leaves_only_the_head_trainable(architecture: str) -> None:
    network = classifier_of(architecture).network
    head = freeze_backbone(network)
    assert head is network.get_submodule(head_name(network))
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trainable == {f"{head_name(network)}.weight", f"{head_name(network)}.bias"}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small"])
def test_the_head_on_features_equals_the_network(architecture: str, mirrored: bool, samples: SampleTable) -> None:
    classifier = classifier_of(architecture)
    head = freeze_backbone(classifier.network)
    images = ImageLoader(samples, PREPROCESSING)
    features, labels = compute_features(classifier, load_in_order(images, 7), FULL, mirrored=mirrored)
    assert features.shape[:2] == (len(samples), 2 if mirrored else 1)
    assert labels.tolist() == [sample.label for sample in samples]
    pixels = torch.cat([batch.inputs for batch in load_in_order(images, 7)])
    views = (pixels, pixels.flip(-1)) if mirrored else (pixels,)
    head.eval()
    with torch.no_grad():
        for number, view in enumerate(views):
            torch.testing.assert_close(head(features[:, number]), classifier(view), atol=1e-5, rtol=1e-4)


def test_features_can_take_part_in_a_backward_pass(samples: SampleTable) -> None:
    classifier = classifier_of("mobilenet_v3_small")
    head = freeze_backbone(classifier.network)
    images = ImageLoader(samples[:4], PREPROCESSING)
    features, labels = compute_features(classifier, load_in_order(images, 4), FULL, mirrored=False)
    (batch,) = load_in_order(FeatureLoader(features, labels), 4)
    head(batch.inputs).sum().backward()  # inference tensors could not take part in it
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(
    ("architecture", "last"), [("resnet18", True), ("mobilenet_v2", True), ("squeezenet1_1", False)]
)
def test_layers_after_the_head_are_detected(architecture: str, last: bool) -> None:
    assert is_head_last(classifier_of(architecture), 32) is last


def feature_loader(num_views: int) -> FeatureLoader:
    features = torch.arange(20 * num_views).view(20, num_views, 1).float()
    return FeatureLoader(features, torch.arange(20))


def test_feature_batches_have_the_given_samples() -> None:
    order = [np.array([7, 3, 19, 0]), np.array([0, 12, 4])]
    batches = list(feature_loader(1).iterate(order, seed=0, epoch=1))
    assert [batch.labels.tolist() for batch in batches] == [indices.tolist() for indices in order]
    assert [batch.inputs.flatten().tolist() for batch in batches] == [indices.tolist() for indices in order]


def test_an_epoch_gets_one_random_view_of_each_photo_in_whatever_batches() -> None:
    def views(*batches: np.ndarray, seed: int = 0, epoch: int = 1) -> dict[int, int]:
        loaded: list[Batch] = list(feature_loader(2).iterate(batches, seed=seed, epoch=epoch))
        pairs = [(label, value % 2) for one in loaded for label, value in zip(one.labels, one.inputs, strict=True)]
        return {int(label): int(view) for label, view in pairs}

    first = views(np.arange(20))
    assert set(first.values()) == {0, 1}
    assert views(*EpochPlan(20, 6, seed=0).batches(1)) == first
    assert views(np.arange(20), epoch=2) != first
    assert views(np.arange(20), seed=1) != first
