"""Polling and log reading, with a clock that does not wait and clients that return scripted answers."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from aws.errors import QUOTAS_PAGE, CloudError, translate_errors
from launch.platform.monitoring import JobMonitor, LogTail, describe_last_lines, wait


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


def poll(describe: Callable[[], dict[str, Any]]) -> tuple[object, list[object], list[float]]:
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


def test_every_description_is_passed_on_until_one_is_final() -> None:
    assert poll(script("a", "b", "done")) == ("done", ["a", "b", "done"], [1, 1])


def test_throttling_and_lost_connections_are_retried_with_backoff() -> None:
    lost = EndpointConnectionError(endpoint_url="https://x")
    answers = (refusal("ThrottlingException"), lost, refusal("ServiceUnavailable"), "a", "done")
    assert poll(script(*answers)) == ("done", ["a", "done"], [2, 4, 8, 1])


def test_ten_failures_in_a_row_are_an_error() -> None:
    # StopIteration, had an eleventh request been sent.
    with pytest.raises(CloudError, match=r"^job: AWS "):
        poll(script(*[refusal("ThrottlingException")] * 10))


def test_nine_failures_in_a_row_are_retried_and_an_answer_starts_the_count_again() -> None:
    failures = [refusal("ThrottlingException")] * 9
    status, seen, slept = poll(script(*failures, "a", *failures, "done"))
    assert (status, seen) == ("done", ["a", "done"])
    assert slept == [2, 4, *[8] * 7, 1, 2, 4, *[8] * 7]


def test_expired_credentials_are_not_retried() -> None:
    with pytest.raises(CloudError, match=r"^job: the credentials have expired: renew them"):
        poll(script(refusal("ExpiredTokenException")))


def test_quota_error_links_to_the_page_that_raises_the_quota() -> None:
    message = "The account-level service limit 'ml.g5.xlarge for training job usage' is 0 Instances"
    with pytest.raises(CloudError) as error, translate_errors("training job x"):
        raise refusal("ResourceLimitExceeded", message)
    assert message in str(error.value)
    assert QUOTAS_PAGE in str(error.value)


class Logs:
    """Log streams as CloudWatch returns them: page by page, of two lines, and the last token again at the end.

    An empty line is a place without an event; a page of such places is empty.
    """

    def __init__(self, **lines: list[str]) -> None:
        self.lines = lines

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": [{"logStreamName": f"job/{name.replace('_', '-')}-170"} for name in self.lines]}

    def get_log_events(self, *, logStreamName: str, nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
        name = logStreamName.removeprefix("job/").removesuffix("-170").replace("-", "_")
        start = int(nextToken)
        page = self.lines[name][start : start + 2]
        events = [{"message": line} for line in page if line]
        return {"events": events, "nextForwardToken": str(start + len(page))}


def test_growing_log_is_read_once_page_by_page() -> None:
    logs = Logs(algo_1=["1", "2", "3"])
    tail = LogTail(logs, "group")
    assert tail.new_lines() == ["1", "2", "3"]
    logs.lines["algo_1"].append("4")
    assert (tail.new_lines(), tail.new_lines()) == (["4"], [])


def test_empty_page_does_not_end_a_log() -> None:
    assert LogTail(Logs(algo_1=["1", "2", "", "", "", "", "3"]), "group").new_lines() == ["1", "2", "3"]


def test_streams_on_all_pages_are_read_even_after_an_empty_one() -> None:
    class Pages(Logs):
        def describe_log_streams(self, *, nextToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
            pages = [["algo-1"], [], ["algo-2"]]
            streams = [{"logStreamName": f"job/{name}-170"} for name in pages[int(nextToken)]]
            following = int(nextToken) + 1
            return {"logStreams": streams, **({"nextToken": str(following)} if following < len(pages) else {})}

    assert LogTail(Pages(algo_1=["a"], algo_2=["b"]), "group").new_lines() == ["algo-1: a", "algo-2: b"]


def test_lines_of_several_hosts_begin_with_the_host() -> None:
    assert LogTail(Logs(algo_1=["a"], algo_2=["b"]), "group").new_lines() == ["algo-1: a", "algo-2: b"]


def test_missing_log_has_no_lines() -> None:
    class Missing(Logs):
        def describe_log_streams(self, **_: Any) -> dict[str, Any]:
            raise refusal("ResourceNotFoundException")

    assert LogTail(Missing(), "group").new_lines() == []


def test_monitor_prints_each_status_once_and_a_progress_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    printed: list[str] = []
    terminal = Terminal()
    monitor = JobMonitor(
        LogTail(Logs(algo_1=["x"]), "g"), printed.append, stream=terminal, clock=iter((0, 65, 70)).__next__
    )
    transitions = [{"Status": "Starting"}, {"Status": "Training", "StatusMessage": "on it"}]
    monitor.update({"SecondaryStatus": "Starting", "SecondaryStatusTransitions": transitions[:1]})
    monitor.update({"SecondaryStatus": "Training", "SecondaryStatusTransitions": transitions})
    monitor.close()
    assert printed == ["status      Starting", "x", "status      Training: on it"]
    assert "Starting  1:05" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_last_lines_are_part_of_an_error_message_if_there_are_any() -> None:
    tail = LogTail(Logs(algo_1=["1", "2", "3"]), "group")
    assert tail.new_lines() == ["1", "2", "3"]
    assert describe_last_lines(tail, 2) == "\nlast lines of its log:\n  2\n  3"
    assert describe_last_lines(LogTail(Logs(algo_1=[]), "group")) == ""
