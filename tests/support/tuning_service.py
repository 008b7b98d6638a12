"""A server in front of moto that scripts the trials of a tuning job.

moto stores a tuning job, but reports at once that it has ended, and can't list its training jobs. This server forwards
all requests to moto, and answers the status of DescribeHyperParameterTuningJob and
ListTrainingJobsForHyperParameterTuningJob itself, and StopHyperParameterTuningJob, which moto lacks.
"""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Json = dict[str, Any]


@dataclass
class Script:
    """The status and the trials at each poll; the last ones repeat. Trials are listed in pages of two.

    Attributes:
        expires_after: number of polls after which the credentials are refused.
    """

    polls: Sequence[tuple[str, Sequence[Json]]]
    failure: str = ""
    num_throttled: int = 0
    expires_after: int | None = None
    operations: list[str] = field(default_factory=list)
    _poll: int = -1
    _num_polls: int = 0

    @property
    def is_expired(self) -> bool:
        """Whether the credentials are refused."""
        return self.expires_after is not None and self._num_polls >= self.expires_after

    def describe(self, known: Json) -> Json:
        self._poll = min(self._poll + 1, len(self.polls) - 1)
        self._num_polls += 1
        status = {"HyperParameterTuningJobStatus": self.polls[self._poll][0]}
        return {**known, **status, **({"FailureReason": self.failure} if self.failure else {})}

    def trials(self, request: Mapping[str, Any]) -> Json:
        start = int(request.get("NextToken", "0"))
        found = list(self.polls[self._poll][1])
        token = {"NextToken": str(start + 2)} if start + 2 < len(found) else {}
        return {"TrainingJobSummaries": found[start : start + 2], **token}


class _Handler(BaseHTTPRequestHandler):
    moto: ClassVar[str]
    script: ClassVar[Script]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.script.operations.append(operation)
        if self.script.is_expired:
            self._answer(400, json.dumps({"__type": "ExpiredTokenException", "message": "expired"}).encode())
        elif operation == "ListTrainingJobsForHyperParameterTuningJob" and self.script.num_throttled:
            self.script.num_throttled -= 1
            self._answer(400, json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode())
        elif operation == "StopHyperParameterTuningJob":
            self._answer(200, b"{}")
        elif operation == "ListTrainingJobsForHyperParameterTuningJob":
            self._answer(200, json.dumps(self.script.trials(json.loads(body))).encode())
        else:
            status, answer = self._ask_moto(body)
            if operation == "DescribeHyperParameterTuningJob" and status == 200:
                answer = json.dumps(self.script.describe(json.loads(answer))).encode()
            self._answer(status, answer)

    do_HEAD = do_GET = do_PUT = do_POST  # noqa: N815 (the server's own names)

    def _ask_moto(self, body: bytes) -> tuple[int, bytes]:
        request = urllib.request.Request(
            self.moto + self.path, data=body or None, headers=dict(self.headers), method=self.command
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output free of the server's log."""


@contextmanager
def tuning_service(moto: str, script: Script) -> Iterator[str]:
    """Yield the URL of a server that plays a script in front of moto."""
    handler = type("Handler", (_Handler,), {"moto": moto, "script": script})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
