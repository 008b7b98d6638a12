"""The names of the architectures, which the scripts know without torchvision."""

from classifier.contract.architectures import ARCHITECTURES
from classifier.vision.models import architectures


def test_names_are_those_of_torchvision() -> None:
    assert architectures() == ARCHITECTURES
