"""Local tuning jobs by the API's calls, with a quick program in place of ``classifier.train``."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import teardown
from launch.local.client import LocalClient
from launch.local.processes import is_alive, running_pid
from launch.training.request import TrainingSpec
from launch.tuning.ranges import parse_ranges
from launch.tuning.request import TuningSpec, tuning_request
from support.quick_trials import PROGRAM

PATIENCE_S = 60.0
LR = {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0.1", "MaxValue": "0.8", "ScalingType": "Linear"}]}
Record = dict[str, Any]


class Tuning:
    """Tuning jobs of a folder; each trial has the variable ``epoch_s``, the seconds of one of its four epochs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.client = folder, LocalClient(folder / "sagemaker", grace_s=5)
        (folder / "photos").mkdir()
        package = folder / "program" / "classifier"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "train.py").write_text(PROGRAM, encoding="utf-8")

    def request(self, name: str = "dogs", *, epoch_s: float = 0.0, epochs: int = 4, **settings: Any) -> Record:
        training = TrainingSpec(
            job_name="trial",
            image="local",
            role="arn:aws:iam::000000000000:role/local",
            channels={"train": (self.folder / "photos").as_uri()},
            output=(self.folder / "artifacts").as_uri(),
            hyperparameters={"epochs": str(epochs)},
            environment={"PYTHONPATH": str(self.folder / "program"), "EPOCH_S": str(epoch_s)},
        )
        spec = TuningSpec(**{"name": name, "ranges": parse_ranges(LR, "ranges", {}), "jobs": 2, **settings})
        return tuning_request(spec, training)

    def create(self, *arguments: Any, **settings: Any) -> None:
        self.client.create_hyper_parameter_tuning_job(**self.request(*arguments, **settings))

    def describe(self, name: str = "dogs") -> Record:
        return self.client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)

    def trials(self, name: str = "dogs", **options: Any) -> list[Record]:
        listed = self.client.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name, **options
        )
        return listed["TrainingJobSummaries"]

    def wait(self, name: str = "dogs") -> Record:
        return self.wait_until(lambda: self.describe(name)["HyperParameterTuningJobStatus"] not in RUNNING, name)

    def wait_until(self, done: Callable[[], bool], name: str = "dogs") -> Record:
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, self.describe(name)
            time.sleep(0.05)
        return self.describe(name)

    def close(self) -> None:
        """Stop the jobs that a failed test has left running."""
        for job in self.client.list_hyper_parameter_tuning_jobs(StatusEquals="InProgress")[
            "HyperParameterTuningJobSummaries"
        ]:
            name = job["HyperParameterTuningJobName"]
            self.client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
            self.wait(name)


RUNNING = ("InProgress", "Stopping")


@pytest.fixture
def tuning(tmp_path: Path) -> Iterator[Tuning]:
    tuning = Tuning(tmp_path)
    try:
        yield tuning
    finally:
        tuning.close()


def test_job_runs_its_trials_and_is_described_as_on_the_platform(
    tuning: Tuning, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning.create()
    assert tuning.client.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"][0]["Strategy"]
    record = tuning.wait()
    assert record["HyperParameterTuningJobStatus"] == "Completed"
    assert record["TrainingJobStatusCounters"]["Completed"] == 2
    assert record["ObjectiveStatusCounters"] == {"Succeeded": 2, "Pending": 0, "Failed": 0}
    first, second = trials = tuning.trials(SortBy="CreationTime")
    objectives = [one["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for one in trials]
    best = trials[objectives.index(max(objectives))]
    assert record["BestTrainingJob"] == best
    assert tuning.trials(SortBy="CreationTime", SortOrder="Descending") == [second, first]
    assert tuning.trials(SortBy="FinalObjectiveMetricValue", SortOrder="Descending")[0] == best
    assert tuning.trials(StatusEquals="Failed") == []
    with pytest.raises(ClientError, match="SortBy Cost: one of Name, CreationTime, Status"):
        tuning.trials(SortBy="Cost")
    job = tuning.client.describe_training_job(TrainingJobName=first["TrainingJobName"])
    assert job["TuningJobArn"] == record["HyperParameterTuningJobArn"]
    assert job["HyperParameters"]["_tuning_objective_metric"] == "validation:accuracy"
    assert tuning.client.list_tags(ResourceArn=record["HyperParameterTuningJobArn"])["Tags"] == job["Tags"]
    check_continuation(tuning, first, second)
    check_warm_start(tuning)
    check_teardown(tuning, capsys)


def check_continuation(tuning: Tuning, *before: Record) -> None:
    """The same search with more trials goes on; another one of the same name is refused."""
    with pytest.raises(ClientError, match="already exists, with other fixed hyperparameters: choose another name"):
        tuning.create(epochs=3)
    tuning.create(jobs=3)
    assert tuning.wait()["TrainingJobStatusCounters"]["Completed"] == 3
    assert tuple(tuning.trials(SortBy="CreationTime")[:2]) == before


def check_warm_start(tuning: Tuning) -> None:
    for parent, objective, message in (
        ("none", "validation:accuracy", "could not find"),
        ("dogs", "validation:loss", "the objective of dogs is validation:accuracy, not validation:loss: use the same"),
    ):
        with pytest.raises(ClientError, match=message):
            tuning.create("other", warm_start=(parent,), objective=objective)
    tuning.create("warm", warm_start=("dogs",), jobs=1, parallel=1)
    assert len(tuning.trials("warm")) <= 1
    assert tuning.wait("warm")["HyperParameterTuningJobStatus"] == "Completed"
    log = tuning.client.folder / "hyper-parameter-tuning-jobs" / "warm" / "supervisor.log"
    assert log.read_text() == "3 trials of dogs are within these ranges\n"


def check_teardown(tuning: Tuning, capsys: pytest.CaptureFixture[str]) -> None:
    assert teardown.main(["--local", "--folder", str(tuning.client.folder), "--jobs", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "removed   tuning dogs\n" in out
    assert "removed   tuning warm\n" in out
    assert tuning.client.list_hyper_parameter_tuning_jobs()["HyperParameterTuningJobSummaries"] == []
    assert tuning.client.list_training_jobs()["TrainingJobSummaries"] == []


def test_stopped_job_ends_its_trials_which_do_not_count(tuning: Tuning) -> None:
    tuning.create(epoch_s=5)
    tuning.wait_until(lambda: len(tuning.trials()) == 2)
    names = [one["TrainingJobName"] for one in tuning.trials(StatusEquals="InProgress")]
    with pytest.raises(ClientError, match="already exists, and is InProgress: watch it, or stop it first"):
        tuning.create(epoch_s=5)
    tuning.client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="dogs")
    assert tuning.wait()["HyperParameterTuningJobStatus"] == "Stopped"
    assert tuning.trials() == []
    ended = [tuning.client.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] for name in names]
    assert ended == ["Stopped"] * 2
    with pytest.raises(ClientError, match="is Stopped, so it can't be stopped"):
        tuning.client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="dogs")


def test_killed_job_fails_leaves_no_trial_and_is_continued_by_the_same_request(tuning: Tuning) -> None:
    tuning.create(epoch_s=5)
    tuning.wait_until(lambda: len(tuning.trials(StatusEquals="InProgress")) == 2)
    interrupted = [one["TunedHyperParameters"] for one in tuning.trials()]
    pid = running_pid(tuning.client.folder / "hyper-parameter-tuning-jobs" / "dogs" / "supervisor.lock")
    assert pid
    os.kill(pid, signal.SIGKILL)
    record = tuning.wait()
    assert record["FailureReason"] == "InternalServerError: the process that ran this job was killed"
    locks = list(tuning.client.folder.glob("training-jobs/*/supervisor.lock"))
    tuning.wait_until(lambda: not any(map(is_alive, locks)))
    assert len(locks) == 2
    tuning.create()
    assert tuning.wait()["HyperParameterTuningJobStatus"] == "Completed"
    tried = [one["TunedHyperParameters"] for one in tuning.trials()]
    assert len(tried) == 2
    assert all(one not in interrupted for one in tried), "no value is sampled again"


def test_job_without_a_successful_trial_fails_with_the_reason_of_one(tuning: Tuning) -> None:
    tuning.create(jobs=1, parallel=1, objective="validation:loss")
    reason = "all 1 trials are done, and no trial has completed: no finite validation:loss in its log"
    assert tuning.wait()["FailureReason"] == reason
    assert teardown.main(["--local", "--folder", str(tuning.client.folder), "--jobs", "--yes"]) == 0
    kinds = ("hyper-parameter-tuning-jobs", "training-jobs")
    assert [list((tuning.client.folder / kind).iterdir()) for kind in kinds] == [[], []]


def test_requests_that_cannot_be_run_are_refused(tuning: Tuning) -> None:
    request = tuning.request()
    del request["TrainingJobDefinition"]
    with pytest.raises(ClientError, match="the local client needs TrainingJobDefinition"):
        tuning.client.create_hyper_parameter_tuning_job(**request)
    request = {**tuning.request(), "HyperParameterTuningJobName": "../escape"}
    with pytest.raises(ClientError, match=r"\.\./escape"):
        tuning.client.create_hyper_parameter_tuning_job(**request)
    assert not (tuning.folder / "sagemaker").exists()
    assert not (tuning.folder / "escape").exists()
