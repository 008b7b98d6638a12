"""Several ranks in processes of their own: what each of them returns from the scenarios of a test.

  python -m support.ranks MODULE FOLDER NAME …

runs the functions NAME … of MODULE in turn, each with the group, as the rank that torchrun's variables describe, and
writes what they return to FOLDER/RANK.pt.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from classifier.training.group import Group, open_group
from support.moto import free_port

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 200


def environments(num_hosts: int, ranks_per_host: int) -> list[dict[str, str]]:
    """torchrun's variables of each rank, on this machine."""
    size = num_hosts * ranks_per_host
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(ranks_per_host),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank % ranks_per_host)} for rank in range(size)]


def run(module: str, scenarios: Sequence[str], num_ranks: int, folder: Path) -> list[dict[str, Any]]:
    """What each rank returns from each scenario, by its name."""
    command = [sys.executable, "-m", "support.ranks", module, str(folder), *scenarios]
    path = os.pathsep.join((str(_ROOT / "tests"), str(_ROOT / "scripts")))
    processes = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, **one}, stderr=subprocess.PIPE, text=True)
        for one in environments(1, num_ranks)
    ]
    try:
        errors = [process.communicate(timeout=_TIMEOUT_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(num_ranks)]


def main() -> None:
    module, folder, *names = sys.argv[1:]
    scenarios: dict[str, Callable[[Group], Any]] = {name: getattr(importlib.import_module(module), name) for name in names}
    with open_group() as group:
        torch.save({name: run(group) for name, run in scenarios.items()}, Path(folder) / f"{group.rank}.pt")


if __name__ == "__main__":
    main()
