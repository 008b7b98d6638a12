"""Docker commands of a local training job in an image, received by a fake ``docker`` that runs nothing."""

from pathlib import Path

import pytest

from launch.platform.resources import Security
from launch.training.request import Resources
from support.shell_jobs import Jobs

# Logs its arguments, reports an engine, and ends each container at once.
DOCKER = """#!/bin/sh
echo "$*" >> "{folder}/commands"
case "$1" in
info) echo '{{"ServerVersion": "1", "Runtimes": {{}}, "SecurityOptions": ["name=rootless"]}}' ;;
run) echo "validation:accuracy=0.5" ;;
esac
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(DOCKER.format(folder=tmp_path), encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "commands"


def test_each_host_is_a_container_on_a_common_network(jobs: Jobs, commands: Path) -> None:
    request = jobs.request(
        "",
        image="image-classifier",
        resources=Resources(num_instances=2),
        checkpoints=(jobs.folder / "kept").as_uri(),
        environment={"OMP_NUM_THREADS": "1"},
        security=Security(network_isolation=True),
    )
    del request["AlgorithmSpecification"]["ContainerEntrypoint"]
    jobs.client.create_training_job(**request)
    record = jobs.wait()
    assert record["TrainingJobStatus"] == "Completed", record
    assert record["FinalMetricDataList"][0]["Value"] == 0.5
    lines = commands.read_text(encoding="utf-8").splitlines()
    assert "network create --internal sagemaker-job" in lines
    runs = sorted(line for line in lines if line.startswith("run "))
    assert [line.split("--name ")[1].split()[0] for line in runs] == ["job-algo-1", "job-algo-2"]
    for host, line in zip(("algo-1", "algo-2"), runs, strict=True):
        assert f'type=bind,"source={jobs.base(host)}",target=/opt/ml' in line
        assert f'type=bind,"source={jobs.folder}/train",target=/opt/ml/input/data/train,readonly' in line
        assert f'type=bind,"source={jobs.folder}/kept",target=/opt/ml/checkpoints' in line
        assert f"--network sagemaker-job --network-alias {host} --hostname {host}" in line
        assert "--env OMP_NUM_THREADS=1 --env TRAINING_JOB_NAME=job" in line
        assert line.endswith("image-classifier train")
    assert lines[-1] == "network rm sagemaker-job"
    # In the container, paths are the platform's.
    config = (jobs.base() / "input" / "config" / "checkpointconfig.json").read_text(encoding="utf-8")
    assert '"/opt/ml/checkpoints"' in config
