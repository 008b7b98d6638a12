"""What is known of each resource, in a JSON file a resource, for this process and for others.

A record is the API's own: fields by the names that a describe call answers with, ``CreationTime`` among them.
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
_TIME = "$time"


class Records:
    """The resources of one kind, such as ``training-job``; each has a folder of its own."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self._folder = folder / f"{kind}s"

    def folder(self, name: str) -> Path:
        return self._folder / name

    def arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:local:000000000000:{self.kind}/{name}"

    def create(self, name: str, record: Record) -> None:
        """
        Raises:
            ClientError: there is one of this name.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self.folder(name).mkdir()
        except FileExistsError:
            raise in_use(f"{self.kind} {name!r} exists already: {self.arn(name)}") from None
        self._write(name, record)

    def read(self, name: str) -> Record:
        """
        Raises:
            ClientError: there is none of this name.
        """
        try:
            return _parse(self._path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(f"could not find {self.kind} {name!r}") from None

    @contextmanager
    def changing(self, name: str) -> Iterator[Record]:
        """The record, to be changed in place; nobody else changes it meanwhile."""
        self.read(name)
        with (self.folder(name) / "record.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = self.read(name)
            yield record
            self._write(name, record)

    def delete(self, name: str) -> None:
        self.read(name)
        shutil.rmtree(self.folder(name))

    def names(self) -> list[str]:
        """By their time of creation, the latest first, as the API lists them."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.parent.name for path in self._folder.glob("*/record.json"))
        return sorted(names, key=lambda name: self.read(name)["CreationTime"], reverse=True)

    def _path(self, name: str) -> Path:
        return self.folder(name) / "record.json"

    def _write(self, name: str, record: Record) -> None:
        # Whoever reads sees the old record or the new one, never half of one.
        unfinished = self._path(name).with_suffix(".part")
        unfinished.write_text(json.dumps(record, indent=2, default=_encode) + "\n", encoding="utf-8")
        unfinished.replace(self._path(name))


def now() -> datetime:
    return datetime.now(UTC)


def _encode(value: object) -> dict[str, str]:
    assert isinstance(value, datetime), f"no {type(value).__name__} in a record"
    return {_TIME: value.isoformat()}


def _decode(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[_TIME]) if value.keys() == {_TIME} else value


def _parse(text: str) -> Record:
    return json.loads(text, object_hook=_decode)
