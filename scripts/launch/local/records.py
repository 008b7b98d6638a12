"""State of the local client's resources: one JSON file each, shared by all processes.

A record has the fields of the API's describe response, ``CreationTime`` among them.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.local.errors import in_use, not_found

Record = dict[str, Any]
# Statuses of a job that has not ended.
RUNNING = ("InProgress", "Stopping")
_TIME = "$time"


class Records:
    """The resources of one kind, such as ``training-job``; each has its own folder.

    Args:
        folder: the local client's folder.
        kind: the resource type as in an ARN.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self._folder = folder / f"{kind}s"

    def folder(self, name: str) -> Path:
        """Return a resource's folder, which also has its logs and its supervisor's files."""
        return self._folder / name

    def arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:local:000000000000:{self.kind}/{name}"

    def create(self, name: str, record: Record) -> None:
        """Write the first version of a record.

        Raises:
            ClientError: the name is taken.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self.folder(name).mkdir()
        except FileExistsError:
            raise in_use(f"{self.kind} {name!r} already exists: {self.arn(name)}") from None
        self._write(name, record)

    def read(self, name: str) -> Record:
        """Read a record.

        Raises:
            ClientError: there is no resource of this name.
        """
        try:
            return _parse(self._path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(f"could not find {self.kind} {name!r}") from None

    @contextmanager
    def edit(self, name: str) -> Iterator[Record]:
        """Yield a record to change in place, under a lock that excludes other writers.

        Raises:
            ClientError: there is no resource of this name.
        """
        self.read(name)
        with (self.folder(name) / "record.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = self.read(name)
            yield record
            self._write(name, record)

    def update(self, name: str, **fields: Any) -> None:
        """Set fields of a record."""
        with self.edit(name) as record:
            record.update(fields)

    def delete(self, name: str) -> None:
        """Remove a resource's folder with everything in it.

        Raises:
            ClientError: there is no resource of this name.
        """
        self.read(name)
        shutil.rmtree(self.folder(name))

    def names(self) -> list[str]:
        """List the names, newest first, as the API does."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.parent.name for path in self._folder.glob("*/record.json"))
        return sorted(names, key=lambda name: self.read(name)["CreationTime"], reverse=True)

    def _path(self, name: str) -> Path:
        return self.folder(name) / "record.json"

    def _write(self, name: str, record: Record) -> None:
        # Atomic: readers see the old record or the new one.
        temporary = self._path(name).with_suffix(".part")
        temporary.write_text(json.dumps(record, indent=2, default=_encode) + "\n", encoding="utf-8")
        temporary.replace(self._path(name))


def now() -> datetime:
    return datetime.now(UTC)


def select_fields(record: Record, fields: tuple[str, ...]) -> Record:
    """Copy the fields that a record has, as list responses show them."""
    return {key: record[key] for key in fields if key in record}


def _encode(value: object) -> dict[str, str]:
    assert isinstance(value, datetime), f"no {type(value).__name__} in a record"
    return {_TIME: value.isoformat()}


def _decode(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[_TIME]) if value.keys() == {_TIME} else value


def _parse(text: str) -> Record:
    return json.loads(text, object_hook=_decode)
