"""Training on several ranks, in processes that exchange tensors over gloo: the same results as on one."""

from typing import Any

import pytest
import torch
from torch import nn

from classifier.training.group import Group, open_group
from classifier.training.loop import EvaluationResult
from classifier.training.sync_batchnorm import synchronize_batchnorm
from support import rank_scenarios, ranks
from support.marks import GATE

MODULE = "support.rank_scenarios"
SCENARIOS = (
    "training",
    "tiny_batches",
    "own_statistics",
    "resumed",
    "evaluation",
    "exchanges",
    "stop_in_steps",
    "stop_after_the_last_step",
    "stop_in_an_agreement",
    "stop_by_a_callback",
    "dropout",
)


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=[*GATE, pytest.mark.slow])])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank returns from each scenario."""
    return ranks.run(MODULE, SCENARIOS, request.param, tmp_path_factory.mktemp("ranks"))


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert list(first) == list(second)
    return max((one.double() - second[name].double()).abs().max().item() for name, one in first.items())


@pytest.mark.parametrize("scenario", ["training", "tiny_batches"])
def test_ranks_learn_the_same_as_one(results: list[dict[str, Any]], scenario: str) -> None:
    """Class weights, label smoothing, batch normalization; shares of unequal sizes, and of none."""
    alone = getattr(rank_scenarios, scenario)(Group())
    for result in (one[scenario] for one in results):
        assert largest_difference(result["state"], alone["state"]) < 1e-5
        assert (result["loss"], result["count"]) == (pytest.approx(alone["loss"], rel=1e-6), alone["count"])
        # Callbacks find the whole batch and its gradients.
        for step, expected in zip(result["steps"], alone["steps"], strict=True):
            logits, labels, loss, gradients = step
            assert torch.equal(labels, expected[1])
            torch.testing.assert_close((logits, loss, gradients), (expected[0], *expected[2:]), rtol=1e-4, atol=1e-6)


def test_ranks_resume_from_the_checkpoint_of_rank_0(results: list[dict[str, Any]]) -> None:
    whole = rank_scenarios.training(Group())["state"]
    assert all(largest_difference(result["resumed"], whole) < 1e-5 for result in results)


def test_all_ranks_have_the_same_weights_bit_by_bit(results: list[dict[str, Any]]) -> None:
    for scenario in ("training", "tiny_batches", "own_statistics"):
        first, *others = (result[scenario]["state"] for result in results)
        assert all(torch.equal(other[name], tensor) for other in others for name, tensor in first.items())


def test_statistics_of_each_ranks_own_photos_are_another_training(results: list[dict[str, Any]]) -> None:
    alone = rank_scenarios.own_statistics(Group())
    assert largest_difference(results[0]["own_statistics"]["state"], alone["state"]) > 1e-4


def test_metrics_are_those_of_one_rank(results: list[dict[str, Any]]) -> None:
    alone = rank_scenarios.evaluation(Group())
    for rank, result in enumerate(one["evaluation"] for one in results):
        assert isinstance(result, EvaluationResult)
        assert (result.accuracy, result.top5, result.f1) == (alone.accuracy, alone.top5, alone.f1)
        assert result.loss == pytest.approx(alone.loss, rel=1e-6)
        assert torch.equal(result.confusion, alone.confusion)
        # Of each photo there is one prediction, in the order of the data, on rank 0.
        expected = (alone.logits, alone.labels) if rank == 0 else (alone.logits[:0], alone.labels[:0])
        torch.testing.assert_close((result.logits, result.labels), expected)


def test_ranks_exchange_values_and_tensors_of_all_types_and_sizes(results: list[dict[str, Any]]) -> None:
    size, found = len(results), [result["exchanges"] for result in results]
    for one in found:
        assert one["broadcast"] == {"from": 0}
        assert {name: tensor.dtype for name, tensor in one["tensors"].items()} == {
            "half": torch.bfloat16,
            "scalar": torch.int64,
            "none": torch.float32,
        }
        assert one["tensors"]["half"].tolist() == [[1, 1, 1], [1, 1, 1]]
        assert (one["tensors"]["scalar"].item(), one["tensors"]["none"].shape) == (5, (0, 4))
        assert one["weight"].tolist() == [[1, 1], [1, 1]]
        assert one["sum"].tolist() == [size * (size + 1) / 2, size / 4]
        assert one["any"] == [True, True, False]
    assert found[0]["gathered"] == [f"from {rank}" for rank in range(size)]
    assert found[0]["rows"].tolist() == [[rank, rank] for rank in range(size) for _ in range(rank)]
    assert found[1]["gathered"] == []
    assert found[1]["rows"].tolist() == []


def test_a_stop_of_one_rank_stops_all_at_the_same_step(results: list[dict[str, Any]]) -> None:
    assert [result["stop_in_steps"] for result in results] == [(rank_scenarios.STOPPED_AT + 1, "SIGTERM")] * len(
        results
    )
    assert [result["stop_after_the_last_step"] for result in results] == ["SIGINT"] * len(results)
    assert [result["stop_in_an_agreement"] for result in results] == ["a rule"] * len(results)
    steps = {result["stop_by_a_callback"] for result in results}
    assert steps == {(rank_scenarios.STOPPED_AT + 2, "a rule")}


def test_ranks_draw_dropout_independently(results: list[dict[str, Any]]) -> None:
    assert torch.equal(results[0]["dropout"], rank_scenarios.dropout(Group()))
    assert len({tuple(result["dropout"].tolist()) for result in results}) == len(results)


def test_a_training_alone_does_not_touch_torch_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.training.group._join", None)
    with open_group({"RANK": "0", "WORLD_SIZE": "1"}) as group, open_group({}) as other:
        assert (group.is_alone, group.is_main, group.num_hosts) == (True, True, 1)
        assert type(other) is Group
    assert not torch.distributed.is_initialized()


def test_batch_normalization_of_a_group_of_one_is_torchs() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 4, 6, 6).mul(3).add(2).to(memory_format=torch.channels_last).requires_grad_()
    upstream = torch.randn(5, 4, 6, 6)
    layers = [nn.Sequential(nn.BatchNorm2d(4, momentum=0.3)) for _ in range(2)]
    nn.init.normal_(next(layers[0].parameters()))
    layers[1].load_state_dict(layers[0].state_dict())
    synchronize_batchnorm(layers[1], Group())
    assert type(layers[1][0]) is not nn.BatchNorm2d
    found: list[list[torch.Tensor]] = []
    for layer in layers:
        layer(inputs)
        output = layer(inputs)
        gradients = torch.autograd.grad(output, [inputs, *layer.parameters()], upstream)
        found.append([output, *gradients, *layer.state_dict().values(), layer.eval()(inputs)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert layers[1].state_dict().keys() == layers[0].state_dict().keys()
