"""Cached features of a frozen backbone: the head on them equals the whole network."""

import pytest
import torch

from classifier.training.batches import ImageLoader, in_order
from classifier.training.features import FeatureLoader, compute_features, freeze_backbone, is_head_last
from classifier.training.precision import Precision
from classifier.training.scan import Sample
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
def test_the_head_on_features_equals_the_network(architecture: str, mirrored: bool, samples: list[Sample]) -> None:
    classifier = classifier_of(architecture)
    head = freeze_backbone(classifier.network)
    images = ImageLoader(samples, PREPROCESSING, 7)
    features, labels = compute_features(classifier, in_order(images), FULL, mirrored=mirrored)
    assert features.shape[:2] == (len(samples), 2 if mirrored else 1)
    assert labels.tolist() == [sample.label for sample in samples]
    pixels = torch.cat([batch.inputs for batch in in_order(images)])
    views = (pixels, pixels.flip(-1)) if mirrored else (pixels,)
    head.eval()
    with torch.no_grad():
        for number, view in enumerate(views):
            torch.testing.assert_close(head(features[:, number]), classifier(view), atol=1e-5, rtol=1e-4)


def test_features_can_take_part_in_a_backward_pass(samples: list[Sample]) -> None:
    classifier = classifier_of("mobilenet_v3_small")
    head = freeze_backbone(classifier.network)
    images = ImageLoader(samples[:4], PREPROCESSING, 4)
    features, labels = compute_features(classifier, in_order(images), FULL, mirrored=False)
    (batch,) = in_order(FeatureLoader(features, labels, 4))
    head(batch.inputs).sum().backward()  # inference tensors could not take part in it
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(
    ("architecture", "last"), [("resnet18", True), ("mobilenet_v2", True), ("squeezenet1_1", False)]
)
def test_layers_after_the_head_are_detected(architecture: str, last: bool) -> None:
    assert is_head_last(classifier_of(architecture), 32) is last


def feature_loader(num_views: int) -> FeatureLoader:
    features = torch.arange(20 * num_views).view(20, num_views, 1).float()
    return FeatureLoader(features, torch.arange(20), 6)


def test_feature_batches_follow_the_given_order() -> None:
    order = [7, 3, 19, 0, 0, 12, 4]
    batches = list(feature_loader(1).iterate(order, seed=0))
    assert [len(batch.labels) for batch in batches] == [6, 1]
    assert torch.cat([batch.labels for batch in batches]).tolist() == order
    assert torch.cat([batch.inputs for batch in batches]).flatten().tolist() == order


def test_an_epoch_gets_one_random_view_of_each_photo() -> None:
    def views(seed: int) -> list[int]:
        batches = list(feature_loader(2).iterate(range(20), seed=seed))
        return (torch.cat([batch.inputs for batch in batches]).flatten().int() % 2).tolist()

    assert set(views(1)) == {0, 1}
    assert views(1) == views(1)
    assert views(1) != views(2)
