"""PNG images: readable, of a suitable size, and not blank."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.reporting.plots import plot_confusion, plot_curves


def history(num_epochs: int, **second: float) -> list[dict[str, float]]:
    return [
        {
            "epoch": number,
            "train:loss": 2 / number,
            "validation:loss": 1.8 / number + 0.1,
            "validation:accuracy": 1 - 0.6 / number,
            "validation:top5": 1 - 0.2 / number,
            "validation:f1": 0.5,
            "lr": 1e-3,
            **(second if number == 2 else {}),
        }
        for number in range(1, num_epochs + 1)
    ]


def open_image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.convert("RGB")


def check_image(path: Path, smallest: int = 400, largest: int = 2800) -> None:
    image = open_image(path)
    assert smallest <= min(image.size)
    assert max(image.size) <= largest
    assert np.asarray(image).std() > 5


@pytest.mark.parametrize(("num_epochs", "best"), [(1, 1), (2, 2), (30, 17), (3, None)])
def test_curves_of_any_length(tmp_path: Path, num_epochs: int, best: int | None) -> None:
    plot_curves(tmp_path / "new" / "curves.png", history(num_epochs), best)
    check_image(tmp_path / "new" / "curves.png")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_curves_with_a_diverged_epoch(tmp_path: Path, value: float) -> None:
    plot_curves(tmp_path / "curves.png", history(3, **{"train:loss": value, "validation:loss": value}), 1)
    check_image(tmp_path / "curves.png")


def confusion_of(num_classes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.poisson(0.4, (num_classes, num_classes)) + np.diag(rng.integers(10, 60, num_classes))


@pytest.mark.parametrize("num_classes", [2, 10, 133])
def test_confusion_matrix_of_any_size(tmp_path: Path, num_classes: int) -> None:
    names = [f"class number {number}" for number in range(num_classes)]
    plot_confusion(tmp_path / "confusion.png", confusion_of(num_classes), names, "Confusion on test, 99 photos")
    check_image(tmp_path / "confusion.png")


def test_confusion_matrix_with_an_empty_class(tmp_path: Path) -> None:
    confusion = np.array([[3, 1], [0, 0]])
    plot_confusion(tmp_path / "confusion.png", confusion, ["a", "b"], "Confusion")
    check_image(tmp_path / "confusion.png")


@pytest.mark.parametrize("name", ["$math$", "$\\frac$", "a_b^c", "\\frac", "犬 🐕", "x" * 200, "<b>", ""])
def test_class_names_with_special_characters(tmp_path: Path, name: str) -> None:
    plot_confusion(tmp_path / "confusion.png", confusion_of(3), [name, "b", "c"], "Confusion")
    check_image(tmp_path / "confusion.png")


def test_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        plot_curves(tmp_path / name, history(4), 2)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
