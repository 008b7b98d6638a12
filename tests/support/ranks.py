"""Several ranks in processes of their own: what each of them returns from the scenarios of a test.

  python -m support.ranks MODULE FOLDER NUM_RANKS NAME …

calls the functions NAME … of MODULE in each rank with the group, and writes what they return to FOLDER/RANK.pt. Torch
is imported once, and each rank is forked from there.
"""

import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from classifier.training.group import Group, open_group
from support.moto import free_port

_ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 100


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
    command = [sys.executable, "-m", "support.ranks", module, str(folder), str(num_ranks), *scenarios]
    path = os.pathsep.join((str(_ROOT / "tests"), str(_ROOT / "scripts")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # Ranks that wait for each other in vain.
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(num_ranks)]


def main() -> None:
    module, folder, num_ranks, *names = sys.argv[1:]
    found = importlib.import_module(module)
    scenarios = {name: getattr(found, name) for name in names}
    pids = [
        os.fork() or _run_rank(scenarios, Path(folder), environment) for environment in environments(1, int(num_ranks))
    ]
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids))


def _run_rank(
    scenarios: Mapping[str, Callable[[Group], Any]], folder: Path, environment: Mapping[str, str]
) -> NoReturn:
    code = 1
    try:
        with open_group(environment) as group:
            torch.save({name: run(group) for name, run in scenarios.items()}, folder / f"{group.rank}.pt")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
