"""Waiting and reading logs, with a clock that does not wait and a client that answers by a script."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from aws.errors import QUOTAS_PAGE, CloudError, translate_errors
from launch.platform.logs import Follower, LogTail
from launch.platform.polling import wait
from launch.platform.prices import describe_hourly


def refusal(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Describe")


def script(*answers: object) -> Callable[[], dict[str, Any]]:
    left: Iterator[object] = iter(answers)

    def describe() -> dict[str, Any]:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return {"status": answer}

    return describe


def wait_for_it(describe: Callable[[], dict[str, Any]]) -> tuple[object, list[object], list[float]]:
    seen: list[object] = []
    slept: list[float] = []
    record = wait(
        describe,
        what="job",
        done=lambda one: one["status"] == "done",
        each=lambda one: seen.append(one["status"]),
        interval_s=1,
        sleep=slept.append,
    )
    return record["status"], seen, slept


def test_every_description_is_seen_until_it_is_done() -> None:
    assert wait_for_it(script("a", "b", "done")) == ("done", ["a", "b", "done"], [1, 1])


def test_throttling_and_a_lost_network_are_waited_for_ever_longer() -> None:
    lost = EndpointConnectionError(endpoint_url="https://x")
    answers = (refusal("ThrottlingException"), lost, refusal("ServiceUnavailable"), "a", "done")
    assert wait_for_it(script(*answers)) == ("done", ["a", "done"], [2, 4, 8, 1])


def test_ten_failures_in_a_row_are_enough() -> None:
    with pytest.raises(CloudError, match="asks to go slower"):
        wait_for_it(script(*[refusal("ThrottlingException")] * 10))


def test_expired_credentials_are_told_at_once() -> None:
    with pytest.raises(CloudError, match=r"^job: the credentials have expired: renew them"):
        wait_for_it(script(refusal("ExpiredTokenException")))


def test_a_quota_names_the_page_where_more_is_asked_for() -> None:
    message = "The account-level service limit 'ml.g5.xlarge for training job usage' is 0 Instances"
    with pytest.raises(CloudError) as error, translate_errors("training job x"):
        raise refusal("ResourceLimitExceeded", message)
    assert message in str(error.value)
    assert QUOTAS_PAGE in str(error.value)


class Logs:
    """Two streams, as CloudWatch gives them: a page at a time, the last token again and again."""

    def __init__(self, **lines: list[str]) -> None:
        self.lines = lines

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": [{"logStreamName": f"job/{name.replace('_', '-')}-170"} for name in self.lines]}

    def get_log_events(self, *, logStreamName: str, nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
        name = logStreamName.removeprefix("job/").removesuffix("-170").replace("-", "_")
        start = int(nextToken)
        page = self.lines[name][start : start + 2]
        return {"events": [{"message": line} for line in page], "nextForwardToken": str(start + len(page))}


def test_a_log_is_told_once_as_it_grows_page_by_page() -> None:
    logs = Logs(algo_1=["1", "2", "3"])
    tail = LogTail(logs, "group")
    assert tail.new_lines() == ["1", "2", "3"]
    logs.lines["algo_1"].append("4")
    assert (tail.new_lines(), tail.new_lines()) == (["4"], [])


def test_several_hosts_lines_begin_with_the_host() -> None:
    assert LogTail(Logs(algo_1=["a"], algo_2=["b"]), "group").new_lines() == ["algo-1: a", "algo-2: b"]


def test_a_log_that_is_not_there_yet_has_no_lines() -> None:
    class Missing(Logs):
        def describe_log_streams(self, **_: Any) -> dict[str, Any]:
            raise refusal("ResourceNotFoundException")

    assert LogTail(Missing(), "group").new_lines() == []


def test_a_follower_tells_each_status_once_and_a_line_of_progress_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said: list[str] = []
    terminal = Terminal()
    follower = Follower(
        LogTail(Logs(algo_1=["x"]), "g"), said.append, stream=terminal, clock=iter((0, 65, 70)).__next__
    )
    transitions = [{"Status": "Starting"}, {"Status": "Training", "StatusMessage": "on it"}]
    follower({"SecondaryStatus": "Starting", "SecondaryStatusTransitions": transitions[:1]})
    follower({"SecondaryStatus": "Training", "SecondaryStatusTransitions": transitions})
    follower.close()
    assert said == ["status      Starting", "x", "status      Training: on it"]
    assert "Starting  1:05" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_prices_are_about_dated_or_unknown() -> None:
    assert describe_hourly("ml.g5.xlarge", 2).startswith("about $2.82 an hour (us-east-1, ")
    assert describe_hourly("ml.x99.large").startswith("price an hour unknown: https://")
