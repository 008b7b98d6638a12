"""An HTTP proxy in front of moto that returns scripted answers: errors, and operations that moto lacks.

Moto never returns an error of its own, completes jobs at once, and has no StopTrainingJob, StopTransformJob and
UpdateEndpoint.
"""

import http.client
import json
import os
import threading
import urllib.parse
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Change = Callable[[dict[str, Any]], Mapping[str, Any]]
Scripted = tuple[int, Mapping[str, Any], Mapping[str, str]] | Change | str
_HOP = {"transfer-encoding", "connection", "content-length", "server", "date"}


class Cloud:
    """Forwards requests to a port, except those scripted with :meth:`refuse`, :meth:`answer` and :meth:`change`."""

    def __init__(self, target: int) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._target = target
        self._script: dict[str, deque[Scripted]] = defaultdict(deque)
        self._always: dict[str, Scripted] = {}
        self._actions: dict[str, Callable[[], object]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def refuse(self, operation: str, code: str, message: str = "no", *, times: int | None = None) -> None:
        """Answer with an error, always or the next ``times`` times."""
        self.answer(operation, {"__type": code, "message": message}, status=400, times=times)

    def refuse_query(self, operation: str, code: str) -> None:
        """Answer with an error in XML, as IAM does."""
        error = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        self._always[operation] = f"<ErrorResponse>{error}</ErrorResponse>"

    def answer(
        self,
        operation: str,
        body: Mapping[str, Any],
        *,
        status: int = 200,
        times: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer with a document, always or the next ``times`` times."""
        if times is None:
            self._always[operation] = (status, body, headers or {})
        else:
            self._script[operation].extend([(status, body, headers or {})] * times)

    def change(self, operation: str, *changes: Change, always: bool = False) -> None:
        """Apply changes to moto's answers: each to one answer in turn, or the first to all."""
        if always:
            self._always[operation] = changes[0]
        else:
            self._script[operation].extend(changes)

    def when(self, operation: str, action: Callable[[], object]) -> None:
        """Call a function at each request to an operation, before it is answered."""
        self._actions[operation] = action

    def bodies(self, operation: str) -> list[dict[str, Any]]:
        """Return the requests that were sent to an operation."""
        return [body for name, body in self.requests if name == operation]

    def changes(self) -> list[str]:
        """Return the operations that were asked for, other than the reading of prices, which every command may do."""
        return [name for name, _ in self.requests if name != "GetProducts"]

    def scripted(self, operation: str) -> Scripted | None:
        """Return the answer for the next request, or None if it is to be forwarded."""
        self._actions.get(operation, lambda: None)()
        waiting = self._script[operation]
        return waiting.popleft() if waiting else self._always.get(operation)

    def forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _action(body: bytes) -> str:
    """Return the operation that a form names; forms are short."""
    return urllib.parse.parse_qs(body.decode("ascii", "replace")).get("Action", [""])[0] if len(body) < 10_000 else ""


def _handler(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise each answer's body waits 40 ms for the client's delayed acknowledgement of its headers.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2] or _action(body) or self.path
            if self.headers.get("X-Amz-Target"):
                cloud.requests.append((operation, json.loads(body or b"{}")))
            scripted = cloud.scripted(operation)
            if isinstance(scripted, str):
                self._reply(403, [("Content-Type", "text/xml")], scripted.encode())
                return
            if isinstance(scripted, tuple):
                status, document, more = scripted
                headers = [("Content-Type", "application/x-amz-json-1.1"), *more.items()]
                self._reply(status, headers, json.dumps(document).encode())
                return
            status, headers, answer = cloud.forward(self.command, self.path, dict(self.headers), body)
            if scripted is not None and status == http.client.OK:
                answer = json.dumps(scripted(json.loads(answer))).encode()
            self._reply(status, headers, answer)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST  # noqa: N815 (the base class's names)

        def _reply(self, status: int, headers: Any, body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing, to keep the tests' output readable."""

    return Handler


class Updates:
    """UpdateEndpoint, which moto lacks, in what DescribeEndpoint answers about an endpoint that was updated.

    Args:
        cloud: where updates are accepted from now on.
        ends_as: what the description has once the update is over; by default the new config is in service.
        num_polls: number of descriptions that show the update in progress.
    """

    def __init__(self, cloud: Cloud, ends_as: Mapping[str, Any] | None = None, *, num_polls: int = 1) -> None:
        self._cloud, self._ends_as, self._left = cloud, ends_as, num_polls
        cloud.answer("UpdateEndpoint", {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/any"})
        cloud.change("DescribeEndpoint", self._describe, always=True)

    def _describe(self, record: dict[str, Any]) -> dict[str, Any]:
        sent = [one for one in self._cloud.bodies("UpdateEndpoint") if one["EndpointName"] == record["EndpointName"]]
        if not sent:
            return record
        config = {"EndpointConfigName": sent[-1]["EndpointConfigName"]}
        if self._left:
            self._left -= 1
            return {**record, "EndpointStatus": "Updating", "PendingDeploymentSummary": config}
        return {**record, **(config if self._ends_as is None else self._ends_as)}


@contextmanager
def scripted_cloud(moto_url: str) -> Iterator[Cloud]:
    cloud = Cloud(int(moto_url.rpartition(":")[2]))
    try:
        yield cloud
    finally:
        cloud.close()


def aws_environment(url: str, home: os.PathLike[str]) -> dict[str, str]:
    """Return an environment that points AWS clients at ``url``, with no other AWS configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "HOME": os.fspath(home),
        "XDG_CACHE_HOME": os.fspath(home),
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.path.join(home, "none"),  # noqa: PTH118
        "AWS_SHARED_CREDENTIALS_FILE": os.path.join(home, "none"),  # noqa: PTH118
        "AWS_EC2_METADATA_DISABLED": "true",
        "LAUNCH_POLL_S": "0.05",
    }
