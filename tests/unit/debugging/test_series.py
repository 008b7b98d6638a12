"""Losses and curves read from recorded tensors, whose values are given."""

from pathlib import Path

import numpy as np
import pytest

from classifier.debugging.series import num_photos_at, read_series
from classifier.debugging.tensors import Tensors
from support.debugged import record

LOSS, LABELS = "CrossEntropyLoss_output_0", "CrossEntropyLoss_input_1"


def test_validation_loss_is_weighted_by_batch_size(tmp_path: Path) -> None:
    run = record(
        tmp_path,
        [
            ("train", {LOSS: 2.0}),
            ("train", {LOSS: 1.5}),
            ("validation", {LOSS: 1.0, LABELS: np.zeros(3, dtype=np.int64)}),
            ("validation", {LOSS: 5.0, LABELS: np.zeros(1, dtype=np.int64)}),
            ("train", {LOSS: 1.0}),
            ("validation", {LOSS: 4.0, LABELS: np.zeros(2, dtype=np.int64)}),
        ],
    )
    series = read_series(Tensors.of(run.trial))
    assert series.training == [(0, 2.0), (1, 1.5), (2, 1.0)]
    assert series.validation == [(1, 2.0), (2, 4.0)]


def test_batches_without_labels_have_equal_weights(tmp_path: Path) -> None:
    run = record(tmp_path, [("train", {LOSS: 2.0}), ("validation", {LOSS: 1.0}), ("validation", {LOSS: 5.0})])
    tensors = Tensors.of(run.trial)
    assert num_photos_at(tensors, tensors.steps()[1]) == 1
    assert read_series(tensors).validation == [(0, 3.0)]


def test_curves_of_layers_are_norms_and_update_ratios(tmp_path: Path) -> None:
    steps = [
        {"gradient/Net_fc.weight": [[3.0, 4.0]], "gradient/Net_fc.bias": [1.0], "update_ratio/Net_fc": 0.125},
        {"gradient/Net_fc.weight": [[0.0, 2.0]], "gradient/Net_fc.bias": [1.0], "update_ratio/Net_fc": 0.25},
    ]
    series = read_series(Tensors.of(record(tmp_path, [("train", values) for values in steps]).trial))
    assert series.gradient_norm == {"fc": [(0, pytest.approx(5.0)), (1, pytest.approx(2.0))]}
    assert series.update_ratio == {"fc": [(0, 0.125), (1, 0.25)]}
