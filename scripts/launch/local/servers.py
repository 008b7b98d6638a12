"""The program ``serve`` on a model, in the background: of this machine's own, or in the image."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aws.clients import s3_client
from aws.errors import translate_errors
from classifier.archives import unpack_tar
from launch.local.docker import Mount, find_engine, run_command
from launch.local.errors import invalid
from launch.local.opt_ml import NO_IMAGE
from launch.local.processes import is_alive, reap, signal_group, start
from launch.local.storage import folder_of, is_local

_PING_S = 2.0
_TERM_S = 30.0


@dataclass(frozen=True)
class Server:
    """A server that was started; kept in an endpoint's record."""

    folder: str
    port: int
    pid: int
    container: str | None = None

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Server":
        return cls(**content)

    def record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def models(self) -> Path:
        """Where a multi-model server's models are put."""
        return Path(self.folder) / "opt_ml" / "models"

    def model_url(self, name: str) -> str:
        return f"/opt/ml/models/{name}/model" if self.container else str(self.models / name / "model")

    @property
    def is_running(self) -> bool:
        return is_alive(Path(self.folder) / "server.lock")

    @property
    def is_ready(self) -> bool:
        try:
            return self.request("GET", "/ping", timeout_s=_PING_S)[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request: status, headers, body. Raises OSError where nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        """SIGTERM, 30 s, SIGKILL, as the platform does."""
        if self.is_running:
            signal_group(self.pid, signal.SIGTERM)
        end = time.monotonic() + _TERM_S
        while self.is_running and time.monotonic() < end:
            time.sleep(0.05)
        if self.container:
            subprocess.run(["docker", "rm", "--force", self.container], check=False, capture_output=True)
        if self.is_running:
            signal_group(self.pid, signal.SIGKILL)
        reap(self.pid)


def start_server(container: Mapping[str, Any], folder: Path, log: Path, environment: Mapping[str, str]) -> Server:
    """Start a server on a model's container definition; it is not yet ready.

    Raises:
        ClientError: the model's archive is not there, or is none.
        ConfigError: an image is asked for, and there is no engine or no such image.
    """
    base = folder / "opt_ml"
    (base / "model").mkdir(parents=True)
    everything = {**container.get("Environment", {}), **environment}
    if container.get("Mode") == "MultiModel":
        (base / "models").mkdir()
        everything["SAGEMAKER_MULTI_MODEL"] = "true"
    elif "ModelDataUrl" in container:
        unpack(container["ModelDataUrl"], base / "model")
    log.parent.mkdir(parents=True, exist_ok=True)
    port, lock = _free_port(), folder / "server.lock"
    if container["Image"] == NO_IMAGE:
        command = [sys.executable, "-m", "classifier.serve"]
        places = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(port), "SERVE_METRICS_PORT": "0"}
        pid = start(command, lock=lock, log=log, environment={**os.environ, **everything, **places})
        return Server(str(folder), port, pid)
    name = f"sagemaker-{uuid.uuid4().hex[:12]}"
    command = run_command(
        find_engine(container["Image"]),
        container["Image"],
        "serve",
        name=name,
        mounts=[Mount(base / one, f"/opt/ml/{one}", True) for one in ("model", "models") if (base / one).is_dir()],
        environment=everything,
        options=["--publish", f"127.0.0.1:{port}:8080"],
    )
    return Server(str(folder), port, start(command, lock=lock, log=log, environment=os.environ), name)


def unpack(url: str, folder: Path) -> None:
    """A ``model.tar.gz``, on this machine or in S3, into a folder.

    Raises:
        ClientError: it is not there, or no such archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder_of(url, "ModelDataUrl") if is_local(url) else _download(url, folder.with_name("download.tar.gz"))
    try:
        unpack_tar(archive, folder)
    except FileNotFoundError:
        raise invalid(f"ModelDataUrl {url}: there is no such file") from None
    except (tarfile.TarError, OSError) as error:
        raise invalid(f"ModelDataUrl {url} can't be unpacked: {error}") from None
    finally:
        if not is_local(url):
            archive.unlink(missing_ok=True)


def _download(url: str, path: Path) -> Path:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    with translate_errors(url):
        s3_client(num_connections=1).download_file(bucket, key, str(path))
    return path


def remove(server: Server) -> None:
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
