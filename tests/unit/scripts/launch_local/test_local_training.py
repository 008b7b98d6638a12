"""Training jobs of the local client: real processes, the platform's words for what became of them."""

import json
import os
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from launch.local.client import LocalClient, LocalLogs
from launch.platform.logs import TRAINING_JOBS, LogTail
from support.shell_jobs import Jobs


def members(uri: str) -> list[str]:
    with tarfile.open(uri.removeprefix("file://")) as archive:
        return sorted(archive.getnames())


def read(base: Path, name: str) -> Any:
    return json.loads((base / "input" / "config" / f"{name}.json").read_text(encoding="utf-8"))


def test_a_job_completes_with_its_artifacts_metrics_and_times(jobs: Jobs) -> None:
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


def test_a_failure_is_told_in_the_programs_own_words_without_a_model(jobs: Jobs) -> None:
    record = jobs.run(
        "echo w > $base/model/w; echo r > $base/output/data/r; "
        "printf 'lr is bad%2000s' x > $base/output/failure; exit 1"
    )
    assert record["TrainingJobStatus"] == "Failed"
    assert record["FailureReason"].startswith("lr is bad")
    assert len(record["FailureReason"]) == 1024
    assert "ModelArtifacts" not in record
    assert members(f"{jobs.folder}/artifacts/job/output/output.tar.gz") == ["r"]


def test_a_failure_without_a_word_names_the_host_and_its_exit_code(jobs: Jobs) -> None:
    assert "algo-1 ended with exit code 7" in jobs.run("exit 7")["FailureReason"]


def test_the_environment_reaches_the_program(jobs: Jobs) -> None:
    script = 'echo "$OMP_NUM_THREADS $TRAINING_JOB_NAME $TRAINING_JOB_ARN" > $base/model/said'
    record = jobs.run(script, environment={"OMP_NUM_THREADS": "1"})
    said = (jobs.base() / "model" / "said").read_text(encoding="utf-8").split()
    assert said == ["1", "job", record["TrainingJobArn"]]


def test_every_config_file_that_the_request_asks_for_is_there(jobs: Jobs) -> None:
    jobs.run(
        "true",
        hyperparameters={"epochs": "3"},
        checkpoints=(jobs.folder / "kept").as_uri(),
        debugger=True,
        save_interval=5,
        profiler=True,
        input_mode="FastFile",
    )
    base = jobs.base()
    assert read(base, "hyperparameters") == {"epochs": "3"}
    assert read(base, "inputdataconfig")["train"]["TrainingInputMode"] == "FastFile"
    assert read(base, "checkpointconfig") == {"LocalPath": str(base / "checkpoints")}
    hook = read(base, "debughookconfig")
    assert hook["LocalPath"] == str(base / "output" / "tensors")
    assert hook["HookParameters"] == {"save_interval": "5"}
    profiler = read(base, "profilerconfig")["ProfilingParameters"]
    assert profiler == {"ProfilerEnabled": True, "LocalPath": str(base / "output" / "profiler")}


def test_what_was_not_asked_for_has_no_config_file(jobs: Jobs) -> None:
    jobs.run("true")
    names = {path.stem for path in (jobs.base() / "input" / "config").iterdir()}
    assert names == {"hyperparameters", "inputdataconfig", "resourceconfig"}


def test_all_hosts_are_waited_for_and_their_folders_merged(jobs: Jobs) -> None:
    # The first host ends at once; the second waits for it, and then goes on writing.
    script = """
        host=$(basename $base)
        if [ $host = algo-2 ]; then until [ -e $base/../algo-1/model/algo-1 ]; do sleep 0.05; done; fi
        echo w > $base/model/$host"""
    record = jobs.run(script, num_instances=2)
    assert members(record["ModelArtifacts"]["S3ModelArtifacts"]) == ["algo-1", "algo-2"]
    for host in ("algo-1", "algo-2"):
        resources = read(jobs.base(host), "resourceconfig")
        assert (resources["current_host"], resources["hosts"]) == (host, ["algo-1", "algo-2"])


def test_one_host_that_fails_ends_the_others(jobs: Jobs) -> None:
    script = '[ $(basename $base) = algo-1 ] && exit 3; trap "exit 0" TERM; while true; do sleep 0.1; done'
    record = jobs.run(script, num_instances=2)
    assert record["TrainingJobStatus"] == "Failed"
    assert "algo-1 ended with exit code 3" in record["FailureReason"]


def test_a_job_that_is_stopped_keeps_its_model(jobs: Jobs) -> None:
    jobs.start('trap "echo w > $base/model/w; exit 0" TERM; touch $base/model/up; while true; do sleep 0.1; done')
    jobs.wait_for(jobs.base() / "model" / "up")
    jobs.client.stop_training_job(TrainingJobName="job")
    record = jobs.wait()
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert members(record["ModelArtifacts"]["S3ModelArtifacts"]) == ["up", "w"]
    with pytest.raises(ClientError, match="is Stopped, so it can't be stopped"):
        jobs.client.stop_training_job(TrainingJobName="job")


def test_a_program_that_ignores_the_stop_is_killed_after_its_grace(tmp_path: Path, jobs: Jobs) -> None:
    deaf = type(jobs)(tmp_path, grace_s=0.2)
    record = deaf.run('trap "" TERM; while true; do sleep 0.1; done', max_run_s=1)
    assert (record["TrainingJobStatus"], record["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_checkpoints_outlive_their_job(jobs: Jobs) -> None:
    kept = jobs.folder / "kept"
    count = "n=$(ls $base/checkpoints | wc -l); touch $base/checkpoints/$n; echo $n > $base/model/n"
    for name in ("first", "second"):
        jobs.start(count, job_name=name, checkpoints=kept.as_uri())
        jobs.wait(name)
    assert (jobs.base(name="second") / "model" / "n").read_text(encoding="utf-8").strip() == "1"
    assert sorted(path.name for path in kept.iterdir()) == ["0", "1"]


def test_tensors_and_profiles_are_delivered_below_their_output_path(jobs: Jobs) -> None:
    script = "mkdir $base/output/tensors $base/output/profiler; touch $base/output/tensors/t $base/output/profiler/p"
    jobs.run(script, debugger=True, profiler=True)
    assert (jobs.folder / "artifacts" / "job" / "debug-output" / "t").exists()
    assert (jobs.folder / "artifacts" / "job" / "profiler-output" / "p").exists()


def test_another_process_sees_the_job(jobs: Jobs) -> None:
    jobs.start('trap "exit 0" TERM; touch $base/model/up; while true; do sleep 0.1; done')
    jobs.wait_for(jobs.base() / "model" / "up")
    other = LocalClient(jobs.client.folder)
    summaries = other.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in summaries] == ["job"]
    other.stop_training_job(TrainingJobName="job")
    assert jobs.wait()["TrainingJobStatus"] == "Stopped"


def test_a_supervisor_that_was_killed_leaves_a_failed_job_and_no_process(jobs: Jobs) -> None:
    jobs.start("echo $$ > $base/model/up; while true; do sleep 0.1; done")
    jobs.wait_until(lambda _: (jobs.base() / "model" / "up").exists() and bool(_pid(jobs.base() / "model" / "up")))
    program = _pid(jobs.base() / "model" / "up")
    os.kill(_pid(jobs.base().parent / "supervisor.pid"), signal.SIGKILL)
    record = jobs.wait()
    assert (record["TrainingJobStatus"], "was killed" in record["FailureReason"]) == ("Failed", True)
    jobs.wait_until(lambda _: not _runs(program))


def _pid(path: Path) -> int:
    return int(path.read_text(encoding="ascii").strip() or 0)


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False


def test_the_log_is_read_as_cloudwatchs_is(jobs: Jobs) -> None:
    jobs.run("echo one; echo two >&2", num_instances=2)
    tail = LogTail(LocalLogs(jobs.client.folder), TRAINING_JOBS, "job/")
    assert sorted(tail.new_lines()) == ["algo-1: one", "algo-1: two", "algo-2: one", "algo-2: two"]
    assert tail.new_lines() == []
    assert len(tail.last_lines(3)) == 3


def test_a_request_that_botocore_would_not_send_is_refused(jobs: Jobs) -> None:
    request = jobs.request("true")
    with pytest.raises(ParamValidationError, match='Unknown parameter in input: "Epochs"'):
        jobs.client.create_training_job(**request, Epochs=3)
    del request["StoppingCondition"]["MaxRuntimeInSeconds"], request["OutputDataConfig"]["S3OutputPath"]
    with pytest.raises(ParamValidationError, match="S3OutputPath"):
        jobs.client.create_training_job(**request)
    assert jobs.client.list_training_jobs()["TrainingJobSummaries"] == []


def test_a_name_can_be_used_once_and_an_unknown_one_is_told(jobs: Jobs) -> None:
    jobs.run("true")
    with pytest.raises(ClientError, match=r"ResourceInUse.*exists already"):
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
def test_a_channel_that_this_machine_cant_give_is_refused(jobs: Jobs, channel: dict[str, str], message: str) -> None:
    request = jobs.request("true")
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"] = channel
    with pytest.raises(ClientError, match=message):
        jobs.client.create_training_job(**request)


def test_a_missing_image_fails_the_job_in_one_line(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    record = jobs.run("true", image="nowhere/none")
    assert record["TrainingJobStatus"] == "Failed"
    assert "an image needs Docker" in record["FailureReason"]
