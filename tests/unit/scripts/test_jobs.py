"""Creation and watch of jobs: what is printed however they end, and Ctrl-C, which no library may lose."""

import gc
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPResponse
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from aws.errors import CloudError
from commands import interrupts
from commands.running import run_command
from launch.endpoint.asynchronous import AsyncInvocations, QueuedPhoto
from launch.platform.jobs import Job
from launch.platform.monitoring import wait
from support.cloud_script import Cloud

RUNNING = {"TrainingJobStatus": "InProgress"}


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


class Response(HTTPResponse):
    """A response during whose finalizer Ctrl-C is pressed; the interpreter drops what is raised there."""

    def __init__(self) -> None:
        pass

    @property
    def closed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        press_ctrl_c()
        return True

    def close(self) -> None:
        """Close nothing: there is no socket."""


class Ignored:
    def update(self, record: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def make_job(describe: Callable[[], Mapping[str, Any]] = lambda: RUNNING, interval_s: float = 0) -> Job:
    return Job(
        program="train",
        kind="training",
        name="dogs",
        status_key="TrainingJobStatus",
        describe=describe,
        interval_s=interval_s,
        describe_cost=lambda _: "$1 an hour",
        commands={"stop it": "STOP", "watch it": "WATCH"},
        latest={"TrainingJobName": "dogs"},
    )


@pytest.fixture
def noted() -> Iterator[None]:
    with interrupts.noted():
        yield


def lose_ctrl_c() -> None:
    Response()


def replace_ctrl_c() -> None:
    """Lose the exception as CPython 3.11 does where formatting an error runs the handler."""
    with suppress(KeyboardInterrupt):
        press_ctrl_c()


@pytest.mark.parametrize("lose", [lose_ctrl_c, replace_ctrl_c])
@pytest.mark.usefixtures("noted")
def test_ctrl_c_that_a_library_has_lost_ends_the_wait(lose: Callable[[], None]) -> None:
    looks = iter(range(3))

    def describe() -> Mapping[str, Any]:
        if next(looks) == 1:
            lose()
        return RUNNING

    with pytest.raises(KeyboardInterrupt):
        wait(describe, what="job", done=lambda _: False, interval_s=0)
    assert next(looks) == 2


@pytest.mark.usefixtures("noted")
def test_lost_ctrl_c_ends_the_wait_for_an_answer(tmp_path: Path) -> None:
    photo = tmp_path / "1.jpg"
    asked = AsyncInvocations(
        cast(Any, SimpleNamespace(interval_s=0)),
        cast(Any, SimpleNamespace(read=lambda _: None)),
        {"EndpointName": "dogs"},
        "s3://bucket/photos",
        wait_s=5,
        sleep=lambda _: replace_ctrl_c(),
        clock=count().__next__,
    )
    asked._queued[photo] = QueuedPhoto("s3://bucket/photos/1.jpg", "s3://bucket/answers/1.out", None)
    with pytest.raises(KeyboardInterrupt):
        asked.answer(photo)


class Finalized:
    """An object with a finalizer of Python's own, which reports what is raised there."""

    def __del__(self) -> None:
        press_ctrl_c()


@pytest.mark.parametrize("finalized", [Response, Finalized])
def test_finalizer_loses_ctrl_c_without_a_word(
    finalized: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reported: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", reported.append)

    def run() -> int:
        finalized()
        return 0

    assert run_command("train", run) == 130
    assert capsys.readouterr().err == "train: stopped\n"
    assert not reported


def test_error_that_replaces_ctrl_c_is_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        replace_ctrl_c()
        raise ValueError("list.index(x): x not in list")

    assert run_command("train", run) == 130
    assert capsys.readouterr().err == "train: stopped\n"


def test_ctrl_c_reaches_a_background_command_of_a_shell_script() -> None:
    """Such a command begins with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_command("train", lambda: press_ctrl_c() or 0) == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_crash_without_ctrl_c_stays_one() -> None:
    def run() -> int:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        run_command("train", run)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A server that gives scripted answers alone."""
    cloud = Cloud(target=0)
    yield cloud
    cloud.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # connections of interrupted requests
def test_none_of_a_hundred_immediate_ctrl_cs_is_lost(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupts that arrive anywhere in botocore: of 97, its hooks and its responses' finalizers have lost 8."""
    cloud.answer("DescribeTrainingJob", RUNNING)
    client = boto3.client(
        "sagemaker",
        endpoint_url=cloud.url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    main, looks = threading.main_thread().ident, threading.Semaphore(0)
    assert main is not None

    def press() -> None:
        looks.acquire()
        signal.pthread_kill(main, signal.SIGINT)

    def describe() -> Mapping[str, Any]:
        looks.release()
        return client.describe_training_job(TrainingJobName="dogs")

    def follow() -> int:
        return 0 if make_job(describe).run(Ignored()) else 130

    try:
        for _ in range(100):
            presser = threading.Thread(target=press)
            presser.start()
            assert run_command("train", follow) == 130
            presser.join()
            while looks.acquire(blocking=False):
                pass
    finally:
        client.close()
        gc.collect()
    assert capsys.readouterr().err.count("train: stopped watching; the job keeps running: $1 an hour\n") == 100


def run_job(job: Job, send: Callable[[], object]) -> int:
    return run_command("train", lambda: 0 if job.run(Ignored(), send) else 130)


COMMANDS = "  stop it:  STOP\n  watch it: WATCH\n"


def test_ctrl_c_during_the_creation_waits_for_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    answered: list[bool] = []

    def send() -> None:
        press_ctrl_c()
        answered.append(True)

    assert run_job(make_job(), send) == 130
    assert answered
    out, err = capsys.readouterr()
    assert out == "job         dogs\n"
    assert err == f"train: stopped watching; the job keeps running: $1 an hour\n{COMMANDS}"


def press_twice() -> None:
    press_ctrl_c()
    press_ctrl_c()


def lose_connection() -> None:
    raise EndpointConnectionError(endpoint_url="https://x")


def fail() -> None:
    raise ClientError({"Error": {"Code": "500"}, "ResponseMetadata": {"HTTPStatusCode": 500}}, "CreateTrainingJob")  # pyright: ignore[reportArgumentType]


def repeat() -> None:
    metadata = {"HTTPStatusCode": 400, "RetryAttempts": 1}
    raise ClientError({"Error": {"Code": "ResourceInUse"}, "ResponseMetadata": metadata}, "CreateTrainingJob")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("send", "code"),
    [(press_twice, 130), (lose_connection, 1), (fail, 1), (repeat, 1)],
    ids=["pressed twice", "no connection", "server error", "repeated"],
)
def test_creation_without_an_answer_may_have_succeeded(
    send: Callable[[], None], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(make_job(), send) == code
    err = capsys.readouterr().err
    assert err.startswith(f"train: job dogs may have been created, and would run: $1 an hour\n{COMMANDS}")
    assert "Traceback" not in err


def test_refused_creation_and_ctrl_c_before_it_leave_no_job(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise ClientError({"Error": {"Code": "ResourceInUse", "Message": "taken"}}, "CreateTrainingJob")

    assert run_job(make_job(), refuse) == 1
    assert capsys.readouterr().err == "train: training job dogs: ResourceInUse: taken\n"

    def run() -> int:
        lose_ctrl_c()
        return 0 if make_job().run(Ignored(), refuse) else 1

    assert run_command("train", run) == 130
    assert capsys.readouterr().err == "train: stopped\n"


def test_refusals_and_ctrl_c_while_watching_leave_the_job_running(capsys: pytest.CaptureFixture[str]) -> None:
    def expire() -> Mapping[str, Any]:
        raise ClientError({"Error": {"Code": "ExpiredTokenException"}}, "DescribeTrainingJob")

    with pytest.raises(CloudError, match="expired"):
        make_job(expire).run(Ignored())
    assert capsys.readouterr().err.startswith("train: stopped watching; the job keeps running: $1 an hour\n")

    class Pressing(Ignored):
        def update(self, record: Mapping[str, Any]) -> None:  # noqa: ARG002
            press_ctrl_c()

    assert run_command("train", lambda: 0 if make_job().run(Pressing()) else 130) == 130
    assert capsys.readouterr().err.startswith("train: stopped watching; the job keeps running")


def test_second_ctrl_c_does_not_cut_the_message_about_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    class Pressing(Ignored):
        def close(self) -> None:
            press_ctrl_c()

        def update(self, record: Mapping[str, Any]) -> None:  # noqa: ARG002
            press_ctrl_c()

    run_command("train", lambda: 0 if make_job().run(Pressing()) else 130)
    assert COMMANDS in capsys.readouterr().err
