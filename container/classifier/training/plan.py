"""Order and random numbers of an epoch, as functions of nothing but the seed, the epoch and the sample.

Batches, threads and ranks are not among their arguments. So a training can go on from any step without a saved random
state, and a sample is augmented alike by any number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

# Columns of the draws of a sample.
CROP, MIRROR, JITTER, ERASE = slice(0, 4), 4, slice(5, 8), slice(8, 12)
NUM_DRAWS = 12
_ORDER, _SHARDS = 1 << 32, (1 << 32) + 1  # columns of their own, beyond those of the draws
WINDOW_BYTES = 256 << 20  # of encoded photos; two windows are in memory
_GOLDEN = 0x9E3779B97F4A7C15


def draws(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """Return uniform random numbers in [0, 1), the same for a sample in any batch, thread and rank.

    Args:
        samples: indices of the samples, integers (N,).

    Returns:
        float32 (N, NUM_DRAWS), in the columns ``CROP``, ``MIRROR``, ``JITTER`` and ``ERASE``.
    """
    # The upper 24 bits: as many as a float32 holds exactly, so that none is rounded up to 1.
    bits = _random_bits(seed, epoch, samples, np.arange(NUM_DRAWS, dtype=np.uint64)) >> np.uint64(40)
    return bits.astype(np.float32) * np.float32(2**-24)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of torch's own generators, from which dropout and stochastic depth draw, for a step of a rank.

    Args:
        step: counted from the training's first.
    """
    return int.from_bytes(blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()) >> 1


def _random_bits(seed: int, epoch: int, samples: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return random bits, uint64 (N, C): splitmix64 (Steele et al., 2014) of a counter instead of a state."""
    keys = _mix(np.array([seed], dtype=np.uint64))
    for values in (np.array([epoch], dtype=np.uint64), samples.astype(np.uint64)):
        keys = _mix(keys + (values + np.uint64(1)) * np.uint64(_GOLDEN))
    return _mix(keys[:, None] + (columns + np.uint64(1)) * np.uint64(_GOLDEN))


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def nth_part(indices: np.ndarray, number: int, count: int) -> np.ndarray:
    """Return part ``number`` of ``count`` contiguous parts, whose lengths differ by one at most."""
    return indices[number * len(indices) // count : (number + 1) * len(indices) // count]


def in_order(num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[np.ndarray]:
    """Yield the indices of a rank's share of all samples in their own order, in batches of nearly equal sizes."""
    indices = EpochPlan.share(np.arange(num_samples), rank, world_size)
    count = num_batches(len(indices), batch_size)
    return (nth_part(indices, number, count) for number in range(count))


def num_batches(num_samples: int, batch_size: int) -> int:
    """Return the number of batches of at most this size."""
    return -(-num_samples // batch_size)


@dataclass(frozen=True, eq=False)
class ShardOrder:
    """Order of samples that are read shard by shard: shards are permuted, and samples are shuffled within windows.

    Attributes:
        starts: the first sample of each shard, the first of all being 0; integers (num_shards,).
        sizes: of the samples in bytes, integers (N,).
        window_bytes: a window ends with the sample that fills it.
    """

    starts: np.ndarray
    sizes: np.ndarray
    window_bytes: int = WINDOW_BYTES

    def reading(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples in the order in which they are read, and where in it each window ends.

        Epoch 0, an evaluation, reads the shards in their own order.
        """
        permuted = np.arange(len(self.starts))
        if epoch:
            keys = _random_bits(seed, epoch, permuted, np.array([_SHARDS], dtype=np.uint64))[:, 0]
            permuted = np.argsort(keys, kind="stable")
        lengths = np.diff(self.starts, append=len(self.sizes))[permuted]
        begins = self.starts[permuted] - (lengths.cumsum() - lengths)
        samples = np.arange(len(self.sizes)) + np.repeat(begins, lengths)
        windows = (self.sizes[samples].cumsum(dtype=np.int64) - 1) // self.window_bytes
        return samples, np.append(np.flatnonzero(np.diff(windows)) + 1, len(samples))

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the order of an epoch's samples, int64 (N,): that of reading, shuffled within each window."""
        samples, ends = self.reading(seed, epoch)
        windows = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        return samples[np.lexsort((_order_keys(samples, seed, epoch), windows))]


@dataclass(frozen=True)
class EpochPlan:
    """The samples of each step of each epoch. Epochs count from 1, the steps of an epoch from 0.

    Attributes:
        batch_size: of all ranks together. Batches have nearly equal sizes: at most this, and never a single sample,
            which batch normalization can't process; three samples in batches of two are one batch.
        shards: for samples that are read shard by shard; the others are in any order.
    """

    num_samples: int
    batch_size: int
    seed: int
    shards: ShardOrder | None = None

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
        return max(1, min(num_batches(self.num_samples, self.batch_size), self.num_samples // 2))

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Return the indices of the samples of a step, int64 (N,); an epoch has every sample once."""
        return nth_part(_order(self.num_samples, self.seed, epoch, self.shards), step, self.steps)

    def batches(self, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """Yield the batches of an epoch, from the step ``start`` on."""
        return (self.batch(epoch, step) for step in range(start, self.steps))

    @staticmethod
    def share(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
        """Return a rank's contiguous share of a batch, empty if there are fewer samples than ranks."""
        return nth_part(indices, rank, world_size)

    @staticmethod
    def share_sizes(num_samples: int, world_size: int) -> list[int]:
        """Return the sizes of the shares of all ranks."""
        return [(rank + 1) * num_samples // world_size - rank * num_samples // world_size for rank in range(world_size)]


@lru_cache(maxsize=2)
def _order(num_samples: int, seed: int, epoch: int, shards: ShardOrder | None) -> np.ndarray:
    """Return the order of an epoch's samples, int64 (num_samples,): sorted by random keys, not drawn in sequence."""
    if shards is not None:
        order = shards.order(seed, epoch)
    else:
        order = np.argsort(_order_keys(np.arange(num_samples), seed, epoch), kind="stable")
    order.flags.writeable = False
    return order


def _order_keys(samples: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    return _random_bits(seed, epoch, samples, np.array([_ORDER], dtype=np.uint64))[:, 0]
