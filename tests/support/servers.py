"""`serve` as the platform starts it: on a folder laid out as /opt/ml, on a free port; and artifacts to serve."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.drawing import SHAPES, draw_photo, encode

# The time that a busy machine may take; an idle one needs two seconds.
START_S = 120.0
CALL_S = 60.0
# A response may precede its line in the log.
LOG_S = 5.0
SIDE = 64


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class ServerProcess:
    """A running `serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_S)
        try:
            return exchange(connection, method, path, body, **headers)
        finally:
            connection.close()

    def invoke(self, body: bytes, content_type: str = "image/jpeg", **headers: str) -> Reply:
        return self.request("POST", "/invocations", body, content_type=content_type, **headers)

    def ping(self) -> int | None:
        """The status, or None if there is no answer."""
        try:
            return self.request("GET", "/ping").status
        except OSError:
            return None

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def wait_until_ready(self) -> None:
        """Wait until ``/ping`` returns 200."""
        deadline = time.monotonic() + START_S
        while self.ping() != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        """The PIDs of Gunicorn's workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(one) for one in children.split()]

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON lines of the log, without one that is still being written."""
        *lines, _ = self.log.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def wait_for_log_line(self, **fields: object) -> dict[str, Any]:
        """Wait for a line with these fields, and return it."""
        deadline = time.monotonic() + LOG_S
        while True:
            for line in self.log_lines():
                if fields.items() <= line.items():
                    return line
            assert time.monotonic() < deadline, f"no line with {fields} in:\n{self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the worker meanwhile: what is sent within the block is there at once when it goes on."""
        (worker,) = self.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 30) -> int:
        """Wait until it has ended; its exit code."""
        return self.process.wait(timeout_s)


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None, **headers: str
) -> Reply:
    """Send one request on an open connection; underscores in header names become hyphens."""
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def scrape(port: int) -> dict[str, float]:
    """The server's metrics by name and labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_S)
    lines = exchange(connection, "GET", "/metrics").body.decode().splitlines()
    connection.close()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(base: Path, log: Path, *, program: Sequence[str] = (), **environment: str) -> ServerProcess:
    """Start `serve`, or another program, on a model folder, without waiting until it is ready."""
    port = free_port()
    command = program or [str(Path(sys.executable).with_name("serve"))]
    everything = {
        **os.environ,
        "SAGEMAKER_BASE_DIR": str(base),
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "SERVE_METRICS_PORT": "0",
        **environment,
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=everything, stdout=stream, stderr=subprocess.STDOUT)
    return ServerProcess(process, port, log)


@contextmanager
def running(base: Path, log: Path, *, program: Sequence[str] = (), **environment: str) -> Iterator[ServerProcess]:
    """Start `serve`, or another program, wait until it is ready, and stop it at the end."""
    server = start(base, log, program=program, **environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def drawn_pixels(num_photos: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Drawn photos of three classes as model input, uint8 (N, side, side, 3), and their labels, integers (N,)."""
    names = sorted(SHAPES)
    photos = [draw_photo(side, side, shape=names[seed % 3], seed=seed) for seed in range(num_photos)]
    return np.stack([np.asarray(one) for one in photos]), np.arange(num_photos) % 3


def drawn_photos(num_photos: int) -> list[bytes]:
    """Drawn photos of several sizes as JPEG files."""
    names = sorted(SHAPES)
    sizes = [(320, 240), (90, 160), (500, 375), (64, 64)]
    return [encode(draw_photo(*sizes[seed % 4], shape=names[seed % 3], seed=seed)) for seed in range(num_photos)]


def addresses(port: int) -> set[str]:
    """Return the IPv4 addresses of this machine on which a program listens to a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    # State 0A is LISTEN; an address is in the byte order of the machine.
    found = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {
        socket.inet_ntoa(int(host, 16).to_bytes(4, sys.byteorder)) for host, number in found if int(number, 16) == port
    }


def write_artifact(folder: Path, *, side: int = SIDE, architecture: str = "squeezenet1_1", seed: int = 0) -> Path:
    """Write an artifact of three classes with random weights, reproducible by ``seed``."""
    # Imported here: programs that only send requests do without torch.
    import torch  # noqa: PLC0415

    from classifier.vision import artifact, models  # noqa: PLC0415
    from classifier.vision.manifest import ClassLabel, ModelManifest  # noqa: PLC0415

    torch.manual_seed(seed)
    names = sorted(SHAPES)
    manifest = ModelManifest(
        architecture=architecture,
        classes=tuple(
            ClassLabel(folder=f"{n:03}.{name}", label=f"{n:03}", class_name=name) for n, name in enumerate(names)
        ),
        preprocessing=models.preprocessing_for(architecture, side),
    )
    artifact.save(folder, models.build(architecture, num_classes=3, image_size=side), manifest)
    return folder


def export_artifact(folder: Path, *, side: int = SIDE, num_photos: int = 12, only_fp32: bool = False) -> Path:
    """Add the files that `train` writes for a CPU, measured on drawn photos; without measurements, those for fp32."""
    from classifier.engine.base import EngineChoice  # noqa: PLC0415
    from classifier.engine.convert import convert_artifact, write_graphs  # noqa: PLC0415
    from classifier.engine.selection import export  # noqa: PLC0415

    if only_fp32:
        write_graphs(folder, convert_artifact(folder), None, EngineChoice(bf16=False, int8=False))
    else:
        export(folder, *drawn_pixels(num_photos, side))
    return folder


def torch_logits(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """The logits of an artifact in torch, fp32 (N, num_classes), for pixels, uint8 (N, S, S, 3)."""
    import torch  # noqa: PLC0415

    from classifier.vision import artifact  # noqa: PLC0415

    classifier, _ = artifact.load(folder)
    with torch.inference_mode():
        return classifier(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
