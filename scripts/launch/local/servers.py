"""Background servers of local endpoints and transform jobs: the program ``serve``, as a process or in a container."""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from classifier.archives import ArchiveError, unpack_tar
from classifier.errors import ConfigError
from launch.local.docker import Mount, find_engine, run_command
from launch.local.errors import invalid
from launch.local.opt_ml import NO_IMAGE
from launch.local.processes import LOOPBACK, free_port, is_alive, reap, running_pid, signal_group, start_process
from launch.local.storage import download_object, is_local, local_path

# In a server's folder: the lock file and, if it runs in an image, the container's name.
_LOCK, _CONTAINER = "server.lock", "container"
_PING_TIMEOUT_S = 2.0
_TERM_S = 30.0  # between SIGTERM and SIGKILL, as on the platform
_ALL_INTERFACES = "0.0.0.0"


@dataclass(frozen=True)
class LocalServer:
    """A server that has been started; its fields are stored in an endpoint's record.

    Attributes:
        folder: its own folder, with ``opt_ml/`` and the lock file.
        port: of ``host``.
        pid: of ``serve`` or of ``docker run``.
        container: the container's name, if it runs in an image.
        host: the address on which it listens.
    """

    folder: str
    port: int
    pid: int
    container: str | None = None
    host: str = LOOPBACK

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> "LocalServer":
        return cls(**content)

    def to_record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def models(self) -> Path:
        """The folder of a multi-model server's models."""
        return Path(self.folder) / "opt_ml" / "models"

    def model_url(self, name: str) -> str:
        """Return the path at which the server finds a model of :attr:`models`."""
        return f"/opt/ml/models/{name}/model" if self.container else str(self.models / name / "model")

    @property
    def is_running(self) -> bool:
        return is_alive(Path(self.folder) / _LOCK)

    @property
    def is_ready(self) -> bool:
        """Whether it passes the health check."""
        try:
            return self.request("GET", "/ping", timeout_s=_PING_TIMEOUT_S)[0] == http.client.OK
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
        """Send one request; return the response's status, headers and body.

        Raises:
            OSError: the server cannot be reached.
        """
        host = LOOPBACK if self.host == _ALL_INTERFACES else self.host
        connection = http.client.HTTPConnection(host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()


def start_server(
    container: Mapping[str, Any], folder: Path, log: Path, environment: Mapping[str, str], *, host: str = LOOPBACK
) -> LocalServer:
    """Start a server for a model's container definition, without waiting until it is ready.

    Args:
        folder: its own folder, by which :func:`remove_server` finds it.
        host: the address on which it listens, ``0.0.0.0`` for all interfaces.

    Raises:
        ClientError: the model's archive is missing or cannot be unpacked.
        ConfigError: the definition names an image, and there is no Docker engine or no such image; or ``host`` is no
            address of this machine.
    """
    base = folder / "opt_ml"
    (base / "model").mkdir(parents=True)
    variables = {**container.get("Environment", {}), **environment}
    if container.get("Mode") == "MultiModel":
        (base / "models").mkdir()
        variables["SAGEMAKER_MULTI_MODEL"] = "true"
    elif "ModelDataUrl" in container:
        unpack_model(container["ModelDataUrl"], base / "model")
    log.parent.mkdir(parents=True, exist_ok=True)
    port, lock = _free_port(host), folder / _LOCK
    if container["Image"] == NO_IMAGE:
        command = [sys.executable, "-m", "classifier.serve"]
        own = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(port), "SERVE_METRICS_PORT": "0"}
        bound = {"SERVE_HOST": host}
        pid = start_process(command, lock=lock, log=log, environment={**os.environ, **variables, **own, **bound})
        return LocalServer(str(folder), port, pid, host=host)
    name = f"sagemaker-{uuid.uuid4().hex[:12]}"
    # Before the container exists: after a kill, it is found by its name.
    (folder / _CONTAINER).write_text(name, encoding="ascii")
    command = run_command(
        find_engine(container["Image"]),
        container["Image"],
        "serve",
        name=name,
        mounts=[Mount(base / one, f"/opt/ml/{one}", True) for one in ("model", "models") if (base / one).is_dir()],
        environment=variables,
        options=["--publish", f"{host}:{port}:8080"],
    )
    pid = start_process(command, lock=lock, log=log, environment=os.environ)
    return LocalServer(str(folder), port, pid, name, host)


def remove_server(folder: Path) -> None:
    """Stop the server that was started in a folder, whichever process started it, and remove the folder.

    The server gets SIGTERM, and SIGKILL if it still runs after 30 s, as on the platform.
    """
    lock, container = folder / _LOCK, folder / _CONTAINER
    pid = running_pid(lock)
    if pid:
        signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + _TERM_S
    while is_alive(lock) and time.monotonic() < deadline:
        time.sleep(0.05)
    if container.exists():
        name = container.read_text(encoding="ascii")
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)
    if pid:
        if is_alive(lock):
            signal_group(pid, signal.SIGKILL)
        reap(pid)
    shutil.rmtree(folder, ignore_errors=True)


def unpack_model(url: str, folder: Path) -> None:
    """Unpack a ``model.tar.gz`` from a ``file://`` or ``s3://`` URL.

    Raises:
        ClientError: it is missing, or cannot be unpacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_local(url):
        archive = local_path(url, "ModelDataUrl")
    else:
        archive = folder.with_name("download.tar.gz")
        download_object(url, archive)
    try:
        unpack_tar(archive, folder)
    except FileNotFoundError:
        raise invalid(f"ModelDataUrl {url}: there is no such file") from None
    except (ArchiveError, OSError) as error:
        raise invalid(f"ModelDataUrl {url} can't be unpacked: {error}") from None
    finally:
        if not is_local(url):
            archive.unlink(missing_ok=True)


def _free_port(host: str) -> int:
    try:
        return free_port(host)
    except OSError:
        raise ConfigError(f"--bind {host}: not an address of this machine; 0.0.0.0 means all of them") from None
