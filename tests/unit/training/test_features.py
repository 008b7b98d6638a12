"""A head on features computed once is the whole network, at a fraction of the work."""

import pytest
import torch

from classifier.training.batches import PhotoBatches, in_order
from classifier.training.features import FeatureBatches, compute_features, freeze_backbone, head_comes_last
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
def test_only_the_head_is_left_to_learn(architecture: str) -> None:
    network = classifier_of(architecture).network
    head = freeze_backbone(network)
    assert head is network.get_submodule(head_name(network))
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learning == {f"{head_name(network)}.weight", f"{head_name(network)}.bias"}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small"])
def test_the_head_on_features_equals_the_network(architecture: str, mirrored: bool, samples: list[Sample]) -> None:
    classifier = classifier_of(architecture)
    head = freeze_backbone(classifier.network)
    photos = PhotoBatches(samples, PREPROCESSING, 7)
    features, labels = compute_features(classifier, in_order(photos), FULL, mirrored=mirrored)
    assert features.shape[:2] == (len(samples), 2 if mirrored else 1)
    assert labels.tolist() == [sample.label for sample in samples]
    pixels = torch.cat([batch.inputs for batch in in_order(photos)])
    views = (pixels, pixels.flip(-1)) if mirrored else (pixels,)
    head.eval()
    with torch.no_grad():
        for number, view in enumerate(views):
            torch.testing.assert_close(head(features[:, number]), classifier(view), atol=1e-5, rtol=1e-4)


def test_features_can_be_learned_from(samples: list[Sample]) -> None:
    classifier = classifier_of("mobilenet_v3_small")
    head = freeze_backbone(classifier.network)
    photos = PhotoBatches(samples[:4], PREPROCESSING, 4)
    features, labels = compute_features(classifier, in_order(photos), FULL, mirrored=False)
    (batch,) = in_order(FeatureBatches(features, labels, 4))
    head(batch.inputs).sum().backward()  # what inference mode made could not take part in a backward pass
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(
    ("architecture", "last"), [("resnet18", True), ("mobilenet_v2", True), ("squeezenet1_1", False)]
)
def test_a_head_that_something_follows_is_told_apart(architecture: str, last: bool) -> None:
    assert head_comes_last(classifier_of(architecture), 32) is last


def feature_batches(num_views: int) -> FeatureBatches:
    features = torch.arange(20 * num_views).view(20, num_views, 1).float()
    return FeatureBatches(features, torch.arange(20), 6)


def test_feature_batches_follow_the_order() -> None:
    order = [7, 3, 19, 0, 0, 12, 4]
    batches = list(feature_batches(1).iterate(order, seed=0))
    assert [len(batch.labels) for batch in batches] == [6, 1]
    assert torch.cat([batch.labels for batch in batches]).tolist() == order
    assert torch.cat([batch.inputs for batch in batches]).flatten().tolist() == order


def test_an_epoch_sees_one_view_of_each_photo_by_chance() -> None:
    def views(seed: int) -> list[int]:
        batches = list(feature_batches(2).iterate(range(20), seed=seed))
        return (torch.cat([batch.inputs for batch in batches]).flatten().int() % 2).tolist()

    assert set(views(1)) == {0, 1}
    assert views(1) == views(1)
    assert views(1) != views(2)
