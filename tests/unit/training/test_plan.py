"""Draws and epoch plans: the same for any batches, threads and ranks, and from any step on."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from classifier.training.plan import NUM_DRAWS, EpochPlan, draws, in_order, step_seed


def test_draws_are_uniform_and_independent_between_columns_samples_and_epochs() -> None:
    first, second = (draws(0, epoch, np.arange(20_000)) for epoch in (1, 2))
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() < 1
    assert np.abs(first.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(first.var(axis=0) - 1 / 12).max() < 0.002
    columns = np.column_stack([first[1:], first[:-1], second[1:]])
    correlations = np.corrcoef(columns.T) - np.eye(3 * NUM_DRAWS)
    assert np.abs(correlations).max() < 0.035  # five standard deviations


@pytest.mark.parametrize("size", [1, 7, 32])
def test_draws_of_a_sample_do_not_depend_on_its_batch(size: int) -> None:
    plan = EpochPlan(num_samples=50, batch_size=size, seed=3)
    whole = draws(3, 2, np.arange(50))
    for indices in plan.batches(2):
        assert np.array_equal(draws(3, 2, indices), whole[indices])


@pytest.mark.parametrize("changed", [(1, 1), (0, 2), (2**32 - 1, 1), (0, 1000)])
def test_another_seed_or_epoch_gives_other_draws_orders_and_step_seeds(changed: tuple[int, int]) -> None:
    seed, epoch = changed
    samples = np.arange(200)
    assert (draws(0, 1, samples) == draws(seed, epoch, samples)).mean() < 0.01
    first, second = (EpochPlan(200, 200, one).batch(number, 0) for one, number in ((0, 1), changed))
    assert (first == second).mean() < 0.1
    assert step_seed(0, 1, 0) != step_seed(seed, epoch, 0)


def test_ranks_and_steps_have_their_own_seeds() -> None:
    seeds = [step_seed(5, step, rank) for step in range(20) for rank in range(4)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


COUNTS = [(1, 2), (2, 2), (3, 2), (5, 2), (8, 4), (9, 4), (10, 4), (33, 32), (5, 64), (1000, 32)]


@pytest.mark.parametrize(("count", "batch_size"), COUNTS)
def test_an_epoch_has_every_sample_once_in_batches_of_nearly_equal_sizes(count: int, batch_size: int) -> None:
    plan = EpochPlan(count, batch_size, seed=0)
    batches = list(plan.batches(1))
    sizes = [len(indices) for indices in batches]
    assert len(sizes) == plan.steps
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 3)
    assert min(sizes) > 1 or count == 1
    assert plan.steps >= count // (batch_size + 1)


def test_every_epoch_and_every_seed_has_its_own_order() -> None:
    orders = [EpochPlan(100, 100, seed).batch(epoch, 0).tolist() for seed, epoch in ((1, 1), (1, 2), (2, 1), (1, 1))]
    assert orders[0] == orders[3]
    assert all(first != second for first, second in pairwise(orders[:3]))
    assert all(sorted(order) == list(range(100)) for order in orders)


def test_orders_are_uniform() -> None:
    first = Counter(int(EpochPlan(5, 5, seed=0).batch(epoch, 0)[0]) for epoch in range(1, 2001))
    assert sum((count - 400) ** 2 / 400 for count in first.values()) < 18.5  # chi-squared, p = 0.001


def test_an_epoch_goes_on_from_any_step_as_if_from_its_first() -> None:
    plan = EpochPlan(num_samples=45, batch_size=7, seed=1)
    whole = list(plan.batches(4))
    for step in range(plan.steps + 1):
        rest = list(EpochPlan(num_samples=45, batch_size=7, seed=1).batches(4, step))
        assert [one.tolist() for one in rest] == [one.tolist() for one in whole[step:]]


@pytest.mark.parametrize("world_size", [1, 2, 4, 9])
def test_the_shares_of_ranks_are_contiguous_and_together_the_batch(world_size: int) -> None:
    batch = EpochPlan(num_samples=45, batch_size=7, seed=1).batch(1, 2)
    shares = [EpochPlan.share(batch, rank, world_size) for rank in range(world_size)]
    assert np.concatenate(shares).tolist() == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    drawn = np.concatenate([draws(1, 1, share) for share in shares])
    assert np.array_equal(drawn, draws(1, 1, batch))


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(24, 5, [4, 5, 5, 5, 5]), (3, 8, [3]), (3, 2, [1, 2])])
def test_batches_in_order_cover_all_samples(count: int, batch_size: int, sizes: list[int]) -> None:
    batches = list(in_order(count, batch_size))
    assert [len(indices) for indices in batches] == sizes
    assert np.concatenate(batches).tolist() == list(range(count))
