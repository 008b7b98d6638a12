"""How many ranks a host has, and the network interface between them."""

from pathlib import Path

import pytest

from classifier.errors import ConfigError
from classifier.ranks import processes


@pytest.mark.parametrize(
    ("ranks_per_host", "gpus", "expected"), [("auto", 0, 1), ("auto", 1, 1), ("auto", 4, 4), (3, 0, 3), (3, 4, 3)]
)
def test_there_is_a_rank_for_each_gpu_unless_configured(
    monkeypatch: pytest.MonkeyPatch, ranks_per_host: int | str, gpus: int, expected: int
) -> None:
    monkeypatch.setattr(processes, "num_gpus", lambda: gpus)
    assert processes.count_ranks(ranks_per_host) == expected


def test_more_ranks_than_gpus_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "num_gpus", lambda: 1)
    with pytest.raises(ConfigError, match="ranks_per_host=2 is more than the host's GPUs, 1: "):
        processes.count_ranks(2)


@pytest.mark.parametrize(
    ("name", "num_hosts", "given", "expected"),
    [
        ("eth0", 2, None, {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"}),
        ("eth0", 2, "ib0", {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "ib0"}),
        ("eth1", 2, None, {}),
        (None, 2, None, {}),
        # Between the ranks of one host.
        ("eth0", 1, None, {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}),
    ],
)
def test_interface_of_the_config_is_used_if_it_exists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    num_hosts: int,
    given: str | None,
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr(processes, "_NETWORK_INTERFACES", tmp_path)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    if given:
        monkeypatch.setenv("NCCL_SOCKET_IFNAME", given)
    for existing in ("eth0", "lo"):
        (tmp_path / existing).mkdir()
    assert processes._interface(name, num_hosts) == expected
