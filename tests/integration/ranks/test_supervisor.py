"""The ranks of two hosts, watched by the hosts' programs. Both hosts are this machine, the ranks lines of Python."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import Cluster, is_running

# What the design promises; a loaded machine starts Python in seconds.
TOLD_S = 10.0
CAN_MOUNT = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0
WAIT = "\nwait_for_stop()\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 2)
    yield cluster
    cluster.close()


def reasons(cluster: Cluster) -> list[str]:
    """Return what each host reports as the reason of the failure, with an empty line for None."""
    return ["\n".join(host.log.partition("failure: ")[2].splitlines()) for host in cluster.hosts.values()]


def test_first_reason_reaches_all_hosts(cluster: Cluster) -> None:
    # Rank 0 loses rank 3 before rank 3's reason is known.
    code = """
if rank == 0: fail(2, "internal error, please report it: RuntimeError: [gloo] Connection closed by peer [::1]")
if rank == 3:
    time.sleep(1)
    fail(1, "DataError: no photos\\nin class 'hat'")
"""
    for name in cluster.names:
        cluster.start_code(name, code + WAIT, num_ranks=2)
    assert cluster.wait() == {"algo-1": 1, "algo-2": 1}
    assert reasons(cluster) == ["DataError: no photos\nin class 'hat'"] * 2


def test_rank_without_a_reason_is_named(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    host = cluster.start_code("algo-1", "sys.exit(3 * rank)", num_ranks=2)
    assert host.wait() == 3
    assert reasons(cluster) == ["rank 1 on algo-1 ended with exit code 3: see its log"]


def test_failed_check_of_one_host_ends_both(cluster: Cluster) -> None:
    cluster.start_code("algo-1", WAIT)
    cluster.start_code("algo-2", WAIT, check="channel 'train': its folder does not exist")
    assert cluster.wait() == {"algo-1": 1, "algo-2": 1}
    assert reasons(cluster) == ["DataError: channel 'train': its folder does not exist"] * 2
    assert "rank 0 of" not in cluster.hosts["algo-2"].log


def test_killed_rank_is_named_on_all_hosts(cluster: Cluster) -> None:
    for name in cluster.names:
        cluster.start_code(name, WAIT, num_ranks=2)
    pids = [cluster.rank_pid(cluster.names[rank // 2], rank) for rank in range(4)]
    os.kill(pids[3], signal.SIGKILL)
    killed_s = time.monotonic()
    assert cluster.wait() == {"algo-1": 2, "algo-2": 2}
    assert time.monotonic() - killed_s < TOLD_S
    assert {reason.partition(",")[0] for reason in reasons(cluster)} == {
        "rank 3 on algo-2 was killed by signal 9 (SIGKILL)"
    }
    assert not any(map(is_running, pids))


@pytest.mark.slow
@pytest.mark.gate
def test_stopped_rank_is_noticed(cluster: Cluster) -> None:
    for name in cluster.names:
        cluster.start_code(name, WAIT, TRAIN_HEARTBEAT_S="5")
    os.kill(cluster.rank_pid("algo-2", 1), signal.SIGSTOP)
    assert cluster.wait() == {"algo-1": 2, "algo-2": 2}
    assert reasons(cluster) == ["rank 1 on algo-2 was stopped by a signal, and has not gone on for 5 s"] * 2


@pytest.mark.parametrize(
    ("lost", "number"),
    [
        ("algo-1", signal.SIGKILL),
        pytest.param("algo-2", signal.SIGKILL, marks=[pytest.mark.slow, pytest.mark.gate]),
        pytest.param("algo-1", signal.SIGSTOP, marks=[pytest.mark.slow, pytest.mark.gate]),
        pytest.param("algo-2", signal.SIGSTOP, marks=[pytest.mark.slow, pytest.mark.gate]),
    ],
)
def test_lost_host_is_noticed_and_leaves_no_rank(cluster: Cluster, lost: str, number: signal.Signals) -> None:
    for name in cluster.names:
        cluster.start_code(name, WAIT, TRAIN_HEARTBEAT_S="5")
    pids = [cluster.rank_pid(name, rank) for rank, name in enumerate(cluster.names)]
    os.kill(cluster.hosts[lost].process.pid, number)
    other = next(name for name in cluster.names if name != lost)
    assert cluster.hosts[other].wait() == 2
    assert f"failure: {lost} has vanished: its program was killed, or nothing was heard of it for 5 s" in (
        cluster.hosts[other].log
    )
    # A killed host takes its ranks along; a stopped one when it goes on, as it learns that it is too late.
    if number == signal.SIGSTOP:
        os.kill(cluster.hosts[lost].process.pid, signal.SIGCONT)
        assert cluster.hosts[lost].wait() == 2
    cluster.wait_until(lambda: not any(map(is_running, pids)))


def test_signal_to_one_host_reaches_the_ranks_of_both_once(cluster: Cluster) -> None:
    code = """
wait_for_stop()
say("rank", rank, "received", *received)
time.sleep(1)
say("rank", rank, "received", *received)
"""
    for name in cluster.names:
        cluster.start_code(name, code, num_ranks=2)
    for rank in range(4):
        cluster.rank_pid(cluster.names[rank // 2], rank)
    cluster.hosts["algo-2"].process.send_signal(signal.SIGTERM)
    assert cluster.wait() == {"algo-1": 0, "algo-2": 0}
    for rank in range(4):
        lines = cluster.hosts[cluster.names[rank // 2]].lines(f"rank {rank} received")
        assert lines == [f"rank {rank} received SIGTERM"] * 2


def test_rank_that_loses_another_one_by_a_stop_has_not_failed(cluster: Cluster) -> None:
    code = """
if rank == 0: wait_for_stop()
else:
    while not received: time.sleep(0.02)
    fail(2, "internal error, please report it: RuntimeError: [gloo] Connection closed by peer [::1]")
"""
    for name in cluster.names:
        cluster.start_code(name, code)
    for rank, name in enumerate(cluster.names):
        cluster.rank_pid(name, rank)
    cluster.hosts["algo-1"].process.send_signal(signal.SIGINT)
    assert cluster.wait() == {"algo-1": 0, "algo-2": 0}
    assert reasons(cluster) == ["None"] * 2


def test_stop_while_another_host_is_awaited(cluster: Cluster) -> None:
    host = cluster.start_code("algo-2", WAIT)
    cluster.wait_until(lambda: host.lines("listening"))
    host.process.send_signal(signal.SIGTERM)
    assert host.wait() == 0
    assert host.lines("stopped") == ["stopped SIGTERM"]


def test_hosts_that_differ_in_their_ranks_are_an_error(cluster: Cluster) -> None:
    for number, name in enumerate(cluster.names, 1):
        cluster.start_code(name, WAIT, num_ranks=number)
    assert cluster.wait() == {"algo-1": 1, "algo-2": 1}
    expected = "ConfigError: the hosts have different numbers of GPUs (algo-1 1, algo-2 2): set ranks_per_host"
    assert reasons(cluster) == [expected] * 2


def test_ranks_get_the_variables_of_torchrun(cluster: Cluster) -> None:
    code = """
names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"]
say("variables", *[os.environ[name] for name in names], os.environ.get("GLOO_SOCKET_IFNAME"))
import socket
if rank == 0:
    # As torch's store does, at the port that the host's program has kept for it.
    server = socket.create_server(("", int(os.environ["MASTER_PORT"])))
    for _ in range(3): server.accept()[0].sendall(b"joined")
else:
    with socket.socket() as client:
        while client.connect_ex((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))): time.sleep(0.1)
        say("rank", rank, client.recv(6).decode())
"""
    for name in cluster.names:
        cluster.start_code(name, code, num_ranks=2)
    assert cluster.wait() == {"algo-1": 0, "algo-2": 0}
    found = {tuple(line.split()[1:]) for host in cluster.hosts.values() for line in host.lines("variables")}
    # No interface: the cluster of these hosts names none.
    assert found == {(str(rank), str(rank % 2), "4", "2", "127.0.0.1", "None") for rank in range(4)}
    joined = [line for host in cluster.hosts.values() for line in host.log.splitlines() if line.endswith("joined")]
    assert sorted(joined) == [f"rank {rank} joined" for rank in (1, 2, 3)]


NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode != 0,
    reason="this user can't create PID namespaces",
)
def test_process_one_leaves_no_zombies(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 1)
    # The child's child outlives its parent, so that process 1 inherits it.
    code = """
import subprocess
subprocess.run(["sh", "-c", "sleep 0.2 & sleep 0.1 &"])
time.sleep(1)
print("states", subprocess.run(["ps", "-eo", "stat="], capture_output=True, text=True).stdout.split(), flush=True)
"""
    host = cluster.start_code("algo-1", code, wrapper=NAMESPACE)
    try:
        assert host.wait() == 0
        [states] = host.lines("states")
        assert "Z" not in states
    finally:
        cluster.close()


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.skipif(not CAN_MOUNT, reason="this user can't mount")
def test_name_that_resolves_late_is_awaited(cluster: Cluster, tmp_path: Path) -> None:
    """The name comes into ``/etc/hosts``, a file of this test's own, and not from a DNS server."""
    names = tmp_path / "hosts"
    names.write_text("127.0.0.1 localhost\n", encoding="utf-8")
    wrapper = ["unshare", "--mount", "sh", "-c", f'mount --bind {names} /etc/hosts && exec "$@"', "sh"]
    cluster.environment["MASTER_ADDR"] = "algo-1"
    code = 'say("rank", rank, "started")'
    waiting = cluster.start_code("algo-2", code, wrapper=wrapper)
    cluster.start_code("algo-1", code, wrapper=wrapper)
    cluster.wait_until(lambda: waiting.lines("hosts       waiting for algo-1, algo-2, 10 s so far (algo-1: "))
    assert not waiting.lines("rank")
    with names.open("a", encoding="utf-8") as file:
        file.write("127.0.0.1 algo-1\n")
    assert cluster.wait() == {"algo-1": 0, "algo-2": 0}
    assert waiting.lines("rank 1 started")


@pytest.mark.slow
@pytest.mark.gate
def test_host_that_never_joins_is_named(cluster: Cluster) -> None:
    cluster.environment["TRAIN_JOIN_S"] = "1"
    host = cluster.start_code("algo-1", WAIT)
    assert host.wait() == 1
    assert "s, algo-2 had not joined the other hosts: in a VPC, the security group has to allow" in reasons(cluster)[0]


ORPHAN = """
import os, subprocess, sys
environment = {**os.environ, "CLASSIFIER_SUPERVISOR": "1"}  # not the parent any more
line = "from classifier.signals import end_with_supervisor; end_with_supervisor(); print('runs on')"
sys.exit(subprocess.run([sys.executable, "-c", line], env=environment).returncode)
"""


def test_rank_ends_whose_supervisor_was_killed_before_its_first_line() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGKILL, "")
