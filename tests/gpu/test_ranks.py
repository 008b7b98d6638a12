"""Ranks with tensors on a GPU: two over gloo on one device, for the logic, and a world of one over NCCL."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.gpu import ROOT, Target

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

# Twelve steps of a network with batch normalization on shares of fixed batches; rank 0 saves its weights.
PROGRAM = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

backend, device, path = sys.argv[1:]
torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(8, 5)).to(device)
dist.init_process_group(backend)
rank, size = dist.get_rank(), dist.get_world_size()
module = DistributedDataParallel(network, broadcast_buffers=False)
optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, fused=True)
generator = torch.Generator().manual_seed(1)
weight = torch.linspace(0.5, 1.5, 5)
for _ in range(12):
    inputs = torch.randn(7, 3, 16, 16, generator=generator)
    labels = torch.randint(0, 5, (7,), generator=generator)
    share = slice(rank * 7 // size, (rank + 1) * 7 // size)
    losses = nn.functional.cross_entropy(
        module(inputs[share].to(device)), labels[share].to(device), weight.to(device), reduction="sum"
    )
    loss = losses * size / weight[labels].sum().item()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
if rank == 0:
    torch.save({name: value.cpu() for name, value in network.state_dict().items()}, path)
dist.barrier()
dist.destroy_process_group()
"""


def train(backend: str, device: str, size: int, path: Path) -> dict[str, torch.Tensor]:
    """Run the program on as many ranks, and return the weights."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    common["PYTHONPATH"] = os.pathsep.join([str(ROOT / "container"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", PROGRAM, backend, device, str(path)]
    ranks = [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    logs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * size, "\n".join(logs)
    return torch.load(path, weights_only=True)


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=1e-5, rtol=0)


def test_two_ranks_over_gloo_learn_what_one_learns(target: Target, tmp_path: Path) -> None:
    device = target.size("cuda:0", "cpu")
    one, two = (train("gloo", device, size, tmp_path / f"{size}.pt") for size in (1, 2))
    assert_close(one, two)


def test_a_world_of_one_over_nccl_learns_the_same(gpu: Target, tmp_path: Path) -> None:
    del gpu
    assert_close(train("gloo", "cuda:0", 1, tmp_path / "gloo.pt"), train("nccl", "cuda:0", 1, tmp_path / "nccl.pt"))
