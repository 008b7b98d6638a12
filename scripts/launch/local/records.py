"""State of the local client's resources: one JSON file each, shared by all processes.

A record has the fields of the API's describe response, ``CreationTime`` among them.
"""

import copy
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.local.errors import in_use, invalid, is_disk_full, not_found

Record = dict[str, Any]
# Statuses of a job that has not ended.
RUNNING = ("InProgress", "Stopping")
_TIME = "$time"
# As AWS's: a name is a part of paths.
_NAME, _MAX_NAME = re.compile("[a-zA-Z0-9](-*[a-zA-Z0-9])*"), 63
_SPARE_BYTES = 32 * 1024


def check_name(name: str) -> str:
    """Return a resource's name if AWS would accept it.

    Raises:
        ClientError: it would not.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise invalid(f"{name!r} is no name: only letters, digits and hyphens, at most {_MAX_NAME} characters")
    return name


class Records:
    """The resources of one kind, such as ``training-job``; each has its own folder.

    Records may hold secrets, such as a job's variables, and are readable by their owner alone. Each has a spare file
    that reserves space for its last updates, so that a job that has filled the disk still ends as Failed.

    Args:
        folder: the local client's folder.
        kind: the resource type as in an ARN.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self._folder = folder / f"{kind}s"

    def folder(self, name: str) -> Path:
        """Return a resource's folder, which also has its logs and its supervisor's files.

        Raises:
            ClientError: the name is not one that AWS would accept.
        """
        return self._folder / check_name(name)

    def arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:local:000000000000:{self.kind}/{name}"

    def create(self, name: str, record: Record) -> None:
        """Write the first version of a record.

        Raises:
            ClientError: the name is taken.
        """
        folder = self.folder(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            raise in_use(f"{self.kind} {name!r} already exists: {self.arn(name)}") from None
        try:
            with _spare(folder).open("wb") as spare:
                os.posix_fallocate(spare.fileno(), 0, _SPARE_BYTES)
            self._write(name, record)
        except OSError:
            shutil.rmtree(folder)
            raise

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
            before = copy.deepcopy(record)
            yield record
            if record != before:
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
        names = sorted(path.parent.name for path in self._folder.glob("[a-zA-Z0-9]*/record.json"))
        return sorted(names, key=lambda name: self.read(name)["CreationTime"], reverse=True)

    def _path(self, name: str) -> Path:
        return self.folder(name) / "record.json"

    def _write(self, name: str, record: Record) -> None:
        text = json.dumps(record, indent=2, default=_encode) + "\n"
        spare = _spare(self.folder(name))
        try:
            _replace(self._path(name), text)
        except OSError as error:
            if not is_disk_full(error) or not spare.exists():
                raise
            spare.unlink()
            _replace(self._path(name), text)


def _spare(folder: Path) -> Path:
    return folder / "record.spare"


def _replace(path: Path, text: str) -> None:
    # Atomic: readers see the old record or the new one.
    temporary = path.with_suffix(".part")
    with open(temporary, "w", encoding="utf-8", opener=_open_private) as file:
        file.write(text)
    temporary.replace(path)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


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
