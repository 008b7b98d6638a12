"""`train` in the image: exit codes, failure file, restricted hosts."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from launch.local.opt_ml import lay_out, resource_config
from support.containers import RESNET, TINY, Container, Image, docker, wait_until

ROOT = Path(__file__).resolve().parents[2]

HOSTS = {
    "64 MB of shared memory, 2 GB of memory": ("--shm-size=64m", "--memory=2g"),
    "no shared memory": ("--ipc=none",),
    "read-only root, no network, no privileges": (
        *("--read-only", "--tmpfs=/tmp", "--network=none", "--shm-size=64m", "--memory=2g"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
    ),
}


def test_training_writes_an_artifact_and_reports(trained: Container) -> None:
    assert {"model.json", "model.safetensors"} <= {path.name for path in trained.paths.model.iterdir()}
    assert {"metrics.json", "history.csv"} <= {path.name for path in trained.paths.output_data.iterdir()}
    assert trained.failure is None
    metrics = json.loads((trained.paths.output_data / "metrics.json").read_text())
    assert metrics["validation:accuracy"] > 0.8


@pytest.mark.parametrize("options", HOSTS.values(), ids=HOSTS)
def test_training_on_restricted_hosts(
    image: Image, shapes: dict[str, Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    container = image.start_training(tmp_path / "ml", shapes, {"num_workers": "2"}, options=options)
    assert container.wait() == 0, container.log
    assert load_file(container.paths.model / "model.safetensors")
    assert (container.paths.output_data / "curves.png").stat().st_size > 1000
    assert "warning" not in container.log.lower(), container.log


@pytest.mark.skipif(os.getuid() != 0, reason="only root can change a folder's owner")
def test_training_as_a_user_without_a_name(image: Image, shapes: dict[str, Path], tmp_path: Path) -> None:
    base = tmp_path / "ml"
    options = ("--read-only", "--tmpfs=/tmp", "--network=none", "--user=12345:12345")
    container = image.start_training(base, shapes, options=options, owner=12345)
    assert container.wait() == 0, container.log
    assert {path.stat().st_uid for path in container.paths.model.iterdir()} == {12345}
    assert "warning" not in container.log.lower(), container.log


def test_user_error_is_exit_code_1(image: Image, shapes: dict[str, Path], tmp_path: Path) -> None:
    container = image.start_training(tmp_path / "ml", shapes, {"learning_rte": "0.1"})
    assert container.wait() == 1
    assert container.failure is not None
    assert container.failure.startswith("ConfigError: ")
    assert "learning_rte" in container.failure
    assert not any(container.paths.model.iterdir())


def test_channel_without_photos_is_exit_code_1(image: Image, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    container = image.start_training(tmp_path / "ml", {"train": tmp_path / "empty"})
    assert container.wait() == 1
    assert container.failure is not None
    assert container.failure.startswith("DataError: ")


def test_internal_error_is_exit_code_2_with_a_traceback(image: Image, shapes: dict[str, Path], tmp_path: Path) -> None:
    container = image.start_training(tmp_path / "ml", shapes, options=("--tmpfs=/opt/ml/model:ro",))
    assert container.wait() == 2
    assert container.failure is not None
    assert container.failure.startswith("internal error, please report it: ")
    assert "Read-only file system" in container.failure.splitlines()[0]
    assert "Traceback" in container.failure


def test_gpu_instance_without_a_driver_is_the_first_error(
    image: Image, shapes: dict[str, Path], tmp_path: Path
) -> None:
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "current_instance_type": "ml.g5.xlarge"}
    config = {"resourceconfig.json": json.dumps(resources)}
    container = image.start_training(tmp_path / "ml", shapes, config=config)
    assert container.wait() == 1
    assert container.failure is not None
    assert "ml.g5.xlarge" in container.failure
    assert "driver 525.60.13 or newer" in container.failure
    assert container.log.splitlines()[0] == f"train failed: {container.failure.strip()}"


@pytest.mark.parametrize("delay_s", [0, 0.3])
def test_sigterm_during_the_start_ends_the_job(
    image: Image, shapes: dict[str, Path], tmp_path: Path, delay_s: float
) -> None:
    container = image.start_training(tmp_path / "ml", shapes, {"epochs": "1000"})
    time.sleep(delay_s)
    # Before or after the program has handlers of its own; SIGKILL would give 137.
    assert container.stop(within_s=20) in (0, 143)
    assert "epoch" not in container.log


def test_second_sigterm_ends_the_job_at_once(image: Image, shapes: dict[str, Path], tmp_path: Path) -> None:
    container = image.start_training(tmp_path / "ml", shapes, {"epochs": "1000"})
    wait_until(lambda: "best" in container.log, "the first epoch")
    docker("kill", "--signal=TERM", container.name)
    wait_until(lambda: "stopped     by SIGTERM" in container.log, "the end of the training")
    # Now it writes the reports.
    docker("kill", "--signal=TERM", container.name)
    assert container.wait() == 143


TwoHosts = Callable[..., list[Container]]


@pytest.fixture
def network() -> Iterator[str]:
    """A bridge network of its own, on which containers find each other by name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name, check=False)


@pytest.fixture
def start_two_hosts(network: str, image: Image, tmp_path: Path) -> TwoHosts:
    """Starts a training on two hosts, given its channels and hyperparameters."""

    def start(channels: Mapping[str, Path], **hyperparameters: str) -> list[Container]:
        hosts = ["algo-1", "algo-2"]
        return [
            image.start_training(
                tmp_path / host,
                channels,
                hyperparameters,
                options=(f"--network={network}", f"--network-alias={host}", f"--hostname={host}"),
                config={"resourceconfig.json": json.dumps(resource_config(host, hosts, "eth0"))},
            )
            for host in hosts
        ]

    return start


def test_two_hosts_train_one_model(start_two_hosts: TwoHosts, shapes: dict[str, Path]) -> None:
    first, second = start_two_hosts(shapes, **{**RESNET, "optimize_for_cpu": "false"})
    assert [first.wait(), second.wait()] == [0, 0], first.log + second.log
    assert "2 ranks on 2 hosts" in first.log
    assert "validation:" not in second.log
    metrics = json.loads((first.paths.output_data / "metrics.json").read_text())
    assert metrics["validation:accuracy"] > 0.8
    # The platform merges the hosts' folders.
    assert [list(folder.iterdir()) for folder in (second.paths.model, second.paths.output_data)] == [[], []]


def test_each_of_two_hosts_has_the_reason_why_it_failed(start_two_hosts: TwoHosts, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    containers = start_two_hosts({"train": tmp_path / "empty"})
    assert [container.wait() for container in containers] == [1, 1]
    [reason] = {container.failure for container in containers}
    assert "/opt/ml/input/data/train holds no class folders" in str(reason)


def test_killed_host_ends_the_other_one(start_two_hosts: TwoHosts, shapes: dict[str, Path]) -> None:
    first, second = start_two_hosts(shapes, epochs="1000")
    wait_until(lambda: "best" in first.log, "first epoch")
    docker("kill", second.name)
    assert first.wait() == 2
    assert (first.failure or "").startswith("algo-2 has vanished: its program was killed, or ")


def test_sigterm_to_one_of_two_hosts_ends_both(start_two_hosts: TwoHosts, shapes: dict[str, Path]) -> None:
    first, second = start_two_hosts(shapes, epochs="1000")
    wait_until(lambda: "best" in first.log, "first epoch")
    assert second.stop(within_s=60) == 0
    assert first.wait() == 0
    assert "stopped     by SIGTERM" in first.log
    assert load_file(first.paths.model / "model.safetensors")


def test_sigterm_saves_the_best_model_so_far(image: Image, shapes: dict[str, Path], tmp_path: Path) -> None:
    container = image.start_training(tmp_path / "ml", shapes, {"epochs": "1000"})
    wait_until(lambda: "best" in container.log, "the first epoch")
    assert container.stop(within_s=60) == 0
    assert "stopped     by SIGTERM" in container.log
    assert "engines     not compared" in container.log
    assert not (container.paths.model / "openvino.xml").exists()
    assert container.failure is None
    manifest = json.loads((container.paths.model / "model.json").read_text())
    assert manifest["metrics"]["validation:accuracy"] > 0
    assert load_file(container.paths.model / "model.safetensors")


def test_a_seed_gives_the_same_bytes_in_the_image_and_outside(
    trained: Container, shapes: dict[str, Path], tmp_path: Path
) -> None:
    lay_out(tmp_path / "ml", shapes, RESNET)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["SAGEMAKER_BASE_DIR"] = str(tmp_path / "ml")
    subprocess.run([sys.executable, "-m", "classifier.train"], check=True, env=environment, capture_output=True)
    for name in ("model/model.json", "model/model.safetensors", "model/openvino.xml", "output/data/metrics.json"):
        assert (tmp_path / "ml" / name).read_bytes() == (trained.paths.base / name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_local_command_stops_cleanly(
    image_name: str, shapes: dict[str, Path], tmp_path: Path, number: signal.Signals
) -> None:
    command = [ROOT / "local_test/train_local.sh", image_name, "--output", tmp_path / "ml", "epochs=1000"]
    command += ["--data", shapes["train"].parent]
    command += [f"{name}={value}" for name, value in TINY.items() if name != "epochs"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.endswith("best\n"):
                process.send_signal(number)
                break
        lines += process.stdout.readlines()
    assert process.returncode == 0, lines
    assert any(f"stopped     by {number.name}" in line for line in lines), lines
    model = tmp_path / "ml" / "model" / "model.safetensors"
    assert model.stat().st_uid == os.getuid()
    assert f"local-training-{process.pid}" not in docker("ps", "--all", "--format", "{{.Names}}")
