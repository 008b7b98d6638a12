"""Local training jobs: real processes with the platform's statuses and failure reasons."""

import json
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from classifier.host import num_cores
from launch.local.client import LocalClient, LocalLogs
from launch.platform.monitoring import TRAINING_JOBS, LogTail
from launch.training.request import Monitoring, Resources
from support.shell_jobs import Jobs


def members(uri: str) -> list[str]:
    with tarfile.open(uri.removeprefix("file://")) as archive:
        return sorted(archive.getnames())


def read(base: Path, name: str) -> Any:
    return json.loads((base / "input" / "config" / f"{name}.json").read_text(encoding="utf-8"))


def test_completed_job_has_artifacts_metrics_and_times(jobs: Jobs) -> None:
    record = jobs.run(
        "echo validation:accuracy=0.25; echo validation:accuracy=0.75; "
        "echo w > $base/model/w; echo r > $base/output/data/r"
    )
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Completed", "Completed")
    assert record["ModelArtifacts"]["S3ModelArtifacts"] == (jobs.folder / "artifacts/job/output/model.tar.gz").as_uri()
    assert members(record["ModelArtifacts"]["S3ModelArtifacts"]) == ["w"]
    assert members(f"{jobs.folder}/artifacts/job/output/output.tar.gz") == ["r"]
    assert [(one["MetricName"], one["Value"]) for one in record["FinalMetricDataList"]] == [
        ("validation:accuracy", 0.75)
    ]
    assert record["CreationTime"] <= record["TrainingStartTime"] <= record["TrainingEndTime"]
    statuses = [one["Status"] for one in record["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]


def test_failed_job_has_the_programs_reason_and_no_model(jobs: Jobs) -> None:
    record = jobs.run(
        "echo w > $base/model/w; echo r > $base/output/data/r; "
        "printf 'lr is bad%2000s' x > $base/output/failure; exit 1"
    )
    assert record["TrainingJobStatus"] == "Failed"
    assert record["FailureReason"].startswith("lr is bad")
    assert len(record["FailureReason"]) == 1024
    assert "ModelArtifacts" not in record
    assert members(f"{jobs.folder}/artifacts/job/output/output.tar.gz") == ["r"]


def test_failure_without_a_reason_names_the_host_and_its_exit_code(jobs: Jobs) -> None:
    assert "algo-1 ended with exit code 7" in jobs.run("exit 7")["FailureReason"]


def test_the_environment_reaches_the_program(jobs: Jobs) -> None:
    script = 'echo "$OMP_NUM_THREADS $TRAINING_JOB_NAME $TRAINING_JOB_ARN" > $base/model/said'
    record = jobs.run(script, environment={"OMP_NUM_THREADS": "1"})
    said = (jobs.base() / "model" / "said").read_text(encoding="utf-8").split()
    assert said == ["1", "job", record["TrainingJobArn"]]


def test_each_host_gets_its_share_of_the_cores(jobs: Jobs) -> None:
    script = 'echo "$OMP_NUM_THREADS$MASTER_ADDR" > $base/model/said'
    jobs.start(script)
    jobs.start(script, job_name="two", resources=Resources(num_instances=2))
    for name in ("job", "two"):
        jobs.wait(name)
    alone = os.environ.get("OMP_NUM_THREADS", "")
    assert (jobs.base() / "model" / "said").read_text(encoding="utf-8") == f"{alone}\n"
    share = f"{max(1, num_cores() // 2)}127.0.0.1\n"
    assert (jobs.base("algo-2", "two") / "model" / "said").read_text(encoding="utf-8") == share


def test_requested_config_files_are_written(jobs: Jobs) -> None:
    jobs.run(
        "true",
        hyperparameters={"epochs": "3"},
        checkpoints=(jobs.folder / "kept").as_uri(),
        monitoring=Monitoring(aws_debugger=True, save_interval=5, profiler=True),
        input_mode="FastFile",
    )
    base = jobs.base()
    assert read(base, "hyperparameters") == {"epochs": "3"}
    assert read(base, "inputdataconfig")["train"]["TrainingInputMode"] == "FastFile"
    kept = (jobs.folder / "kept").as_uri()
    assert read(base, "checkpointconfig") == {"S3Uri": kept, "LocalPath": str(base / "checkpoints")}
    hook = read(base, "debughookconfig")
    assert hook["LocalPath"] == str(base / "output" / "tensors")
    assert hook["HookParameters"] == {"save_interval": "5"}
    profiler = read(base, "profilerconfig")["ProfilingParameters"]
    assert profiler == {"ProfilerEnabled": True, "LocalPath": str(base / "output" / "profiler")}


def test_no_other_config_files_are_written(jobs: Jobs) -> None:
    jobs.run("true")
    names = {path.stem for path in (jobs.base() / "input" / "config").iterdir()}
    assert names == {"hyperparameters", "inputdataconfig", "resourceconfig"}


def test_all_hosts_finish_and_their_folders_are_merged(jobs: Jobs) -> None:
    # The first host ends at once; the second waits for it, then writes its file.
    script = """
        host=$(basename $base)
        if [ $host = algo-2 ]; then until [ -e $base/../algo-1/model/algo-1 ]; do sleep 0.05; done; fi
        echo $MASTER_ADDR $MASTER_PORT > $base/model/$host"""
    record = jobs.run(script, resources=Resources(num_instances=2))
    assert members(record["ModelArtifacts"]["S3ModelArtifacts"]) == ["algo-1", "algo-2"]
    # They meet at one port of this machine, where their names do not resolve.
    meetings = {(jobs.base(host) / "model" / host).read_text(encoding="utf-8") for host in ("algo-1", "algo-2")}
    assert [meeting.split()[0] for meeting in meetings] == ["127.0.0.1"]
    for host in ("algo-1", "algo-2"):
        resources = read(jobs.base(host), "resourceconfig")
        assert (resources["current_host"], resources["hosts"]) == (host, ["algo-1", "algo-2"])


def test_failing_host_ends_the_others(jobs: Jobs) -> None:
    script = '[ $(basename $base) = algo-1 ] && exit 3; trap "exit 0" TERM; while true; do sleep 0.1; done'
    record = jobs.run(script, resources=Resources(num_instances=2))
    assert record["TrainingJobStatus"] == "Failed"
    assert "algo-1 ended with exit code 3" in record["FailureReason"]


def test_stopped_job_keeps_its_model(jobs: Jobs) -> None:
    jobs.start('trap "echo w > $base/model/w; exit 0" TERM; touch $base/model/up; while true; do sleep 0.1; done')
    jobs.wait_for(jobs.base() / "model" / "up")
    jobs.client.stop_training_job(TrainingJobName="job")
    record = jobs.wait()
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert members(record["ModelArtifacts"]["S3ModelArtifacts"]) == ["up", "w"]
    with pytest.raises(ClientError, match="is Stopped, so it can't be stopped"):
        jobs.client.stop_training_job(TrainingJobName="job")


def test_program_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path, jobs: Jobs) -> None:
    impatient = type(jobs)(tmp_path, grace_s=0.2)
    record = impatient.run('trap "" TERM; while true; do sleep 0.1; done', resources=Resources(max_run_s=1))
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_checkpoints_are_kept_between_jobs(jobs: Jobs) -> None:
    kept = jobs.folder / "kept"
    count = "n=$(ls $base/checkpoints | wc -l); touch $base/checkpoints/$n; echo $n > $base/model/n"
    for name in ("first", "second"):
        jobs.start(count, job_name=name, checkpoints=kept.as_uri())
        jobs.wait(name)
    assert (jobs.base(name="second") / "model" / "n").read_text(encoding="utf-8").strip() == "1"
    assert sorted(path.name for path in kept.iterdir()) == ["0", "1"]


# Ends by itself only where it finds the checkpoint of an earlier attempt.
RESUME = """
    ls -A $base/model $base/output/data $base/checkpoints > $base/found
    if [ -e $base/checkpoints/1 ]; then cp $base/found $base/model/found; exit 0; fi
    echo partial | tee $base/model/w $base/output/data/r $base/checkpoints/1
    while true; do sleep 0.1; done"""


def test_interrupted_job_starts_again_with_its_checkpoints_alone(tmp_path: Path) -> None:
    # The program does not end on SIGTERM, so that SIGKILL follows.
    jobs = Jobs(tmp_path, grace_s=0.2, interrupt_after_s=3)
    kept = jobs.folder / "kept"
    record = jobs.run(f'trap "" TERM; {RESUME}', checkpoints=kept.as_uri(), resources=Resources(spot=True))
    assert record["TrainingJobStatus"] == "Completed", record
    transitions = record["SecondaryStatusTransitions"]
    first = ["Starting", "Downloading", "Training", "Interrupted"]
    assert [one["Status"] for one in transitions] == [*first, "Starting", "Training", "Uploading", "Completed"]
    message = f"interrupted after 3 s, as on Spot capacity; it starts again with the checkpoints in {kept.as_uri()}"
    assert transitions[3]["StatusMessage"] == message
    assert LogTail(LocalLogs(jobs.client.folder), TRAINING_JOBS, "job/").new_lines() == ["partial", message]
    assert (jobs.base() / "model" / "found").read_text(encoding="utf-8").split() == [
        *[f"{jobs.base()}/checkpoints:", "1"],
        f"{jobs.base()}/model:",
        f"{jobs.base()}/output/data:",
    ]
    assert members(record["ModelArtifacts"]["S3ModelArtifacts"]) == ["found"]
    assert [path.name for path in kept.iterdir()] == ["1"]


def test_interrupted_job_without_checkpoints_starts_from_the_beginning(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, interrupt_after_s=3)
    # Beside /opt/ml, so that it outlives the attempt.
    count = "echo >> $base/../n; mkdir -p $base/checkpoints; ls $base/checkpoints > $base/model/found; "
    script = f"{count} touch $base/checkpoints/1; [ $(wc -l < $base/../n) = 2 ] && exit 0; exec sleep 60"
    record = jobs.run(script)
    assert record["TrainingJobStatus"] == "Completed", record
    assert "it starts again from the beginning: it has no checkpoints" in str(record["SecondaryStatusTransitions"])
    assert (jobs.base() / "model" / "found").read_text(encoding="utf-8") == ""


def test_job_that_ends_before_its_interruption_is_not_started_again(tmp_path: Path) -> None:
    record = Jobs(tmp_path, interrupt_after_s=60).run("true")
    assert "Interrupted" not in str(record)


def test_tensors_and_profiles_are_delivered_below_their_output_path(jobs: Jobs) -> None:
    script = "mkdir $base/output/tensors $base/output/profiler; touch $base/output/tensors/t $base/output/profiler/p"
    jobs.run(script, monitoring=Monitoring(aws_debugger=True, profiler=True))
    assert (jobs.folder / "artifacts" / "job" / "debug-output" / "t").exists()
    assert (jobs.folder / "artifacts" / "job" / "profiler-output" / "p").exists()


def test_other_clients_see_the_job(jobs: Jobs) -> None:
    jobs.start('trap "exit 0" TERM; touch $base/model/up; while true; do sleep 0.1; done')
    jobs.wait_for(jobs.base() / "model" / "up")
    other = LocalClient(jobs.client.folder)
    summaries = other.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in summaries] == ["job"]
    other.stop_training_job(TrainingJobName="job")
    assert jobs.wait()["TrainingJobStatus"] == "Stopped"


def test_killed_supervisor_leaves_a_failed_job_and_no_process(jobs: Jobs) -> None:
    jobs.start("echo $$ > $base/model/up; while true; do sleep 0.1; done")
    jobs.wait_until(lambda _: (jobs.base() / "model" / "up").exists() and bool(_pid(jobs.base() / "model" / "up")))
    program = _pid(jobs.base() / "model" / "up")
    os.kill(_pid(jobs.base().parent / "supervisor.pid"), signal.SIGKILL)
    record = jobs.wait()
    assert (record["TrainingJobStatus"], "was killed" in record["FailureReason"]) == ("Failed", True)
    jobs.wait_until(lambda _: not _is_running(program))


def _pid(path: Path) -> int:
    return int(path.read_text(encoding="ascii").strip() or 0)


def _is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False


def test_logs_are_read_as_from_cloudwatch(jobs: Jobs) -> None:
    jobs.run("echo one; echo two >&2", resources=Resources(num_instances=2))
    tail = LogTail(LocalLogs(jobs.client.folder), TRAINING_JOBS, "job/")
    assert sorted(tail.new_lines()) == ["algo-1: one", "algo-1: two", "algo-2: one", "algo-2: two"]
    assert tail.new_lines() == []
    assert len(tail.last_lines(3)) == 3


def test_request_that_botocore_would_not_send_is_rejected(jobs: Jobs) -> None:
    request = jobs.request("true")
    with pytest.raises(ParamValidationError, match='Unknown parameter in input: "Epochs"'):
        jobs.client.create_training_job(**request, Epochs=3)
    del request["StoppingCondition"]["MaxRuntimeInSeconds"], request["OutputDataConfig"]["S3OutputPath"]
    with pytest.raises(ParamValidationError, match="S3OutputPath"):
        jobs.client.create_training_job(**request)
    assert jobs.client.list_training_jobs()["TrainingJobSummaries"] == []


def test_names_are_unique_and_unknown_names_are_errors(jobs: Jobs) -> None:
    jobs.run("true")
    with pytest.raises(ClientError, match=r"ResourceInUse.*already exists"):
        jobs.start("true")
    with pytest.raises(ClientError, match="could not find training-job 'none'"):
        jobs.describe("none")


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ({"S3DataType": "S3Prefix", "S3Uri": "file:///none"}, "there is no folder /none"),
        ({"S3DataType": "ManifestFile", "S3Uri": "file:///none"}, "of type S3Prefix"),
        (
            {"S3DataType": "S3Prefix", "S3Uri": "file:///tmp", "S3DataDistributionType": "ShardedByS3Key"},
            "FullyReplicated",
        ),
    ],
)
def test_unsupported_channel_is_rejected(jobs: Jobs, channel: dict[str, str], message: str) -> None:
    request = jobs.request("true")
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"] = channel
    with pytest.raises(ClientError, match=message):
        jobs.client.create_training_job(**request)


def test_missing_engine_fails_the_job_with_a_reason(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    record = jobs.run("true", image="nowhere/none")
    assert record["TrainingJobStatus"] == "Failed"
    assert "an image needs Docker" in record["FailureReason"]
