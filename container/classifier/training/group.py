"""The ranks of a training: processes with a device, or a share of the cores, each, which train one model together.

A rank learns its place from torchrun's environment variables. A training without them is a group of one, which
exchanges nothing and touches nothing of torch.distributed.

Ranks that wait for work of unknown length, such as the scan of the photos, :meth:`Group.meet` on the store, which knows
no timeout. All other methods exchange tensors, and all ranks have to call them at the same time: within ``TIMEOUT_S``.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")

# A rank that keeps the others waiting for so long in the middle of a step has died or is stuck.
TIMEOUT_S = 600
# Of the ranks' hosts, which may be ready at very different times.
_CONNECT_TIMEOUT_S = 900
_MIN_POLL_S, _MAX_POLL_S = 0.001, 0.1


class Group:
    """A group of one, and the interface of a group.

    Attributes:
        rank: the number of this rank.
        world_size: number of ranks on all hosts.
        local_rank: the number of this rank on its host, and of its GPU.
        local_world_size: number of ranks on this host.
    """

    rank = 0
    world_size = 1
    local_rank = 0
    local_world_size = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone logs and writes files."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether this is the only rank."""
        return self.world_size == 1

    @property
    def num_hosts(self) -> int:
        """Number of hosts, each with as many ranks as this one."""
        return self.world_size // self.local_world_size

    def broadcast(self, value: T) -> T:
        """Return rank 0's value, which is pickled; those of the others are not looked at."""
        return value

    def broadcast_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return rank 0's tensors by name, on the CPU where this is not rank 0."""
        return dict(tensors)

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, which are pickled, in the order of the ranks; on other ranks than 0, none."""
        return [value]

    def gather_rows(self, tensor: Tensor) -> Tensor:
        """Concatenate the tensors of all ranks in the order of the ranks, on rank 0 and its CPU.

        Args:
            tensor: (N, …), where N may differ between ranks.

        Returns:
            The rows of all ranks on rank 0; none, (0, …), on the others.
        """
        return tensor.cpu()

    def all_gather_rows(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        """Concatenate the tensors of all ranks in the order of the ranks, on every rank and its device.

        Args:
            tensor: (N, …).
            sizes: every rank's N.
        """
        assert sizes == [len(tensor)], "a group of one has all rows"
        return tensor

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, which are the same bits on every rank."""

    def ask_any(self, value: bool) -> Callable[[], bool]:
        """Begin to find out whether any rank has a true value; the returned function waits for the answer."""
        return lambda: value

    def publish(self, name: str, value: str) -> None:
        """Leave a value for the other ranks."""

    def published(self, name: str) -> str | None:
        """Return the value that a rank has published under a name; None if none has."""

    def meet(self, name: str, decide: Callable[[], str], idle: Callable[[], object]) -> str:
        """Wait for all ranks, without a timeout, and return what the last to arrive has decided.

        Args:
            name: of the meeting, which happens once.
            decide: called on the last rank.
            idle: called again and again while this rank waits.
        """
        del name, idle
        return decide()


class _Ranks(Group):
    """Several ranks, over torch.distributed: gloo for the CPU's tensors, NCCL for a GPU's."""

    def __init__(self, environment: Mapping[str, str], store: Any) -> None:
        self.rank, self.world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        self.local_rank = int(environment.get("LOCAL_RANK", "0"))
        self.local_world_size = int(environment.get("LOCAL_WORLD_SIZE", "1"))
        self._store: Any = store
        # Of its own, so that exchanges of the host's values never queue behind a device's.
        self.control: Any = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=TIMEOUT_S))

    def broadcast(self, value: T) -> T:
        values: list[Any] = [value if self.is_main else None]
        torch.distributed.broadcast_object_list(values, group=self.control, device=torch.device("cpu"))
        return values[0]

    def broadcast_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shapes = self.broadcast([(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()])
        received: dict[str, Tensor] = {}
        for name, shape, dtype in shapes:
            if self.is_main:
                received[name] = tensors[name]
                sent = tensors[name].detach().cpu().contiguous()
            else:
                sent = received[name] = torch.empty(shape, dtype=dtype)
            if sent.numel():
                torch.distributed.broadcast(_as_bytes(sent), 0, group=self.control)
        return received

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.world_size
        torch.distributed.gather_object(value, values if self.is_main else None, group=self.control)
        return values if self.is_main else []

    def gather_rows(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu().contiguous()
        sizes = self.gather(len(tensor))
        if not self.is_main:
            if tensor.numel():
                torch.distributed.send(_as_bytes(tensor), 0, group=self.control)
            return tensor[:0]
        # Received in their place, since the features of many photos would not fit into memory twice.
        rows = torch.empty(sum(sizes), *tensor.shape[1:], dtype=tensor.dtype)
        for rank, part in enumerate(rows.split(sizes)):
            if rank == 0:
                part.copy_(tensor)
            elif part.numel():
                torch.distributed.recv(_as_bytes(part), rank, group=self.control)
        return rows

    def all_gather_rows(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        largest = max(sizes)
        padded = tensor.new_zeros(largest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        rows = tensor.new_empty(self.world_size * largest, *tensor.shape[1:])
        torch.distributed.all_gather_into_tensor(rows, padded)
        return torch.cat([part[:size] for part, size in zip(rows.split(largest), sizes, strict=True)])

    def sum(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            torch.distributed.all_reduce(tensor)

    def ask_any(self, value: bool) -> Callable[[], bool]:
        flag = torch.tensor(int(value))
        maximum = torch.distributed.ReduceOp.MAX
        work = torch.distributed.all_reduce(flag, maximum, group=self.control, async_op=True)
        assert work is not None, "this rank is in the group"

        def answer() -> bool:
            work.wait()
            return bool(flag.item())

        return answer

    def publish(self, name: str, value: str) -> None:
        self._store.set(name, value)

    def published(self, name: str) -> str | None:
        # A get would wait for a value.
        return self._store.get(name).decode() if self._store.check([name]) else None

    def meet(self, name: str, decide: Callable[[], str], idle: Callable[[], object]) -> str:
        decision = f"{name}/decision"
        if self._store.add(f"{name}/arrived", 1) == self.world_size:
            self.publish(decision, decide())
        # Not by the store's own wait, during which no signal is handled, and which warns of every timeout.
        poll_s = _MIN_POLL_S
        while (decided := self.published(decision)) is None:
            idle()
            time.sleep(poll_s)
            poll_s = min(2 * poll_s, _MAX_POLL_S)
        return decided


def share_tensors(module: nn.Module, group: Group) -> None:
    """Give a module the parameters and buffers that it has on rank 0."""
    state = module.state_dict()
    for name, tensor in group.broadcast_tensors(state).items():
        if tensor is not state[name]:
            state[name].copy_(tensor)


def _as_bytes(tensor: Tensor) -> Tensor:
    """Return the memory of a contiguous tensor, since gloo does not know every type of number."""
    return tensor.view(-1).view(torch.uint8)


@contextmanager
def open_group(environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """Join the group that torchrun's variables describe; without them, or with a world of one, yield a group of one.

    The variables: ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``.
    With GPUs, a rank has the one of its local rank.
    """
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        yield Group()
        return
    yield _join(environment)
    # Only here: after an exception the other ranks are waiting for this one, and learn of its end from their sockets.
    # By then its reason has been written, so that it is known which was the first to fail.
    torch.distributed.destroy_process_group()


def _join(environment: Mapping[str, str]) -> Group:
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415 - only several ranks need it

    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
        backend = "nccl"
    with _no_greeting():
        url = f"tcp://{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
        connect = timedelta(seconds=_CONNECT_TIMEOUT_S)
        store, _, _ = next(rendezvous(url, rank, size, timeout=connect))
        timeout = timedelta(seconds=TIMEOUT_S)
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        return _Ranks(environment, store)


@contextmanager
def _no_greeting() -> Iterator[None]:
    """Keep off standard output what gloo prints to it when it has connected: from there the platform reads metrics."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
