"""Trainings on several hosts and ranks, with the real program: the same results as on one rank."""

import csv
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from classifier.contract.paths import Paths
from support.cluster import Cluster
from support.jobs import TINY
from support.marks import GATE

pytestmark = list(GATE)

# With a learning rate at which the rounding of a sum stays one: a network of many layers that learns fast from few
# photos enlarges it as much as the number of threads does.
PARAMETERS = {
    **TINY,
    "model": "resnet18",
    "precision": "fp32",
    "image_size": "64",
    "batch_size": "7",
    "epochs": "2",
    "optimizer": "sgd",
    "lr": "1e-6",
    "scheduler": "constant",
    "augmentation": "strong",
    "class_weights": "balanced",
    "label_smoothing": "0.1",
}


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """30 photos to train with; 15 and 9 to evaluate, which no number of ranks from 2 on divides evenly."""
    folder = tmp_path_factory.mktemp("channels")
    sizes = {"train": 10, "validation": 5, "test": 3}
    for name, size in sizes.items():
        for label, kind in enumerate(("dark", "grey", "light")):
            (folder / name / kind).mkdir(parents=True)
            for number in range(size):
                write_noise(folder / name / kind / f"{number}.png", 60 + 60 * label, len(name) * 100 + number)
    return {name: folder / name for name in sizes}


def write_noise(path: Path, mean: int, seed: int) -> None:
    """Write a photo of nothing but grain: of smooth ones, batch normalization enlarges the rounding."""
    pixels = np.random.default_rng([mean, seed]).normal(mean, 40, (72, 72, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def clusters(tmp_path: Path, channels: dict[str, Path]) -> Iterator["Clusters"]:
    clusters = Clusters(tmp_path, channels)
    yield clusters
    for cluster in clusters.all:
        cluster.close()


class Clusters:
    """Jobs of a number of hosts and ranks, each on hosts of its own."""

    def __init__(self, folder: Path, channels: dict[str, Path]) -> None:
        self.all: list[Cluster] = []
        self._folder, self._channels = folder, channels

    def start(self, name: str, num_hosts: int, ranks_per_host: int, **parameters: str) -> Cluster:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        cluster = Cluster(folder, num_hosts)
        self.all.append(cluster)
        cluster.lay_out(self._channels, {**PARAMETERS, **parameters, "ranks_per_host": str(ranks_per_host)})
        for host in cluster.names:
            cluster.start_train(host)
        return cluster

    def run(self, name: str, num_hosts: int, ranks_per_host: int, **parameters: str) -> Paths:
        cluster = self.start(name, num_hosts, ranks_per_host, **parameters)
        assert set(cluster.wait().values()) == {0}, {name: host.log for name, host in cluster.hosts.items()}
        return Paths(cluster.base("algo-1"))


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_same(found: Paths, expected: Paths, tolerance: float = 1e-5) -> None:
    """Equal metrics, and losses and weights up to rounding, which grows with the steps."""
    for name in ("steps.csv", "history.csv"):
        for row, other in zip(rows(found.output_data / name), rows(expected.output_data / name), strict=True):
            assert row == pytest.approx(other, rel=1e-3)
            counts = {key for key in row if key.endswith(("accuracy", "f1", "top5"))}
            assert {key: row[key] for key in counts} == {key: other[key] for key in counts}
    metrics = [json.loads((one.output_data / "metrics.json").read_text(encoding="utf-8")) for one in (found, expected)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-3)
    for name in ("confusion.csv", "classes.csv"):
        assert (found.output_data / name).read_bytes() == (expected.output_data / name).read_bytes()
    weights, others = (load_file(one.model / "model.safetensors") for one in (found, expected))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=tolerance)


def test_two_hosts_of_two_ranks_equal_one_rank(clusters: Clusters) -> None:
    expected = clusters.run("one", 1, 1)
    found = clusters.run("four", 2, 2)
    assert_same(found, expected)
    log = clusters.all[-1].hosts["algo-1"].log
    assert re.search("^device +4 ranks on 2 hosts, each: CPU, 1 threads, fp32$", log, re.MULTILINE)
    assert "warning: 4 ranks share batches of 6 photos and spend" in log
    assert "epoch   1/2" not in clusters.all[-1].hosts["algo-2"].log
    assert not any(Paths(clusters.all[-1].base("algo-2")).model.glob("*"))


def test_a_training_goes_on_with_any_number_of_ranks(clusters: Clusters) -> None:
    expected = clusters.run("whole", 1, 1, epochs="5")
    for hosts, ranks, epoch in ((2, 1, 1), (1, 1, 3)):
        cluster = clusters.start("resumed", hosts, ranks, epochs="5")
        cluster.wait_until(lambda cluster=cluster, epoch=epoch: cluster.hosts["algo-1"].lines(f"epoch   {epoch}/5"))
        # The platform stops all hosts, and one is enough.
        cluster.hosts[cluster.names[-1]].process.send_signal(signal.SIGTERM)
        assert set(cluster.wait().values()) == {0}, cluster.hosts["algo-1"].log
        assert "stopped     by SIGTERM; the best model so far is kept" in cluster.hosts["algo-1"].log
    found = clusters.run("resumed", 2, 2, epochs="5")
    assert re.search(r"^resumed +at epoch [45]", clusters.all[-1].hosts["algo-1"].log, re.MULTILINE)
    # After 25 steps; the weights of one rank differ as much after a change of 3e-7 in the first ones.
    assert_same(found, expected, tolerance=2e-3)


@pytest.mark.parametrize("augmentation", ["flip", "standard"])
def test_a_head_on_features_of_all_ranks_equals_that_of_one(
    clusters: Clusters, imagenet_weights: Path, channels: dict[str, Path], augmentation: str
) -> None:
    frozen = {"model": "mobilenet_v2", "pretrained": "true", "freeze": "backbone", "augmentation": augmentation}
    frozen |= {"epochs": "3", "label_smoothing": "0"}
    channels["pretrained"] = imagenet_weights
    try:
        expected, found = (clusters.run(f"{ranks} ranks", 1, ranks, **frozen) for ranks in (1, 3))
    finally:
        del channels["pretrained"]
    history = [rows(one.output_data / "history.csv") for one in (found, expected)]
    # Of several ranks, each draws its own dropout.
    tolerance = 1e-4 if augmentation == "flip" else 0.05
    for row, other in zip(*history, strict=True):
        assert row == pytest.approx(other, rel=tolerance)
