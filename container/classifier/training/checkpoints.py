"""Checkpoint files: written so that any kill leaves a whole one, and read with every doubt.

A checkpoint is one safetensors file, ``checkpoint-EEEE-SSSSSSSS.safetensors``, named by its position: the epoch and the
step in it that come next. The platform uploads the folder as it changes, marks files with ``.sagemaker-uploading`` and
``.sagemaker-uploaded``, and does not upload names that end in ``.sagemaker-ignore``; deletions reach S3, too.
"""

import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from classifier.errors import failure_as_warning

_NAME = re.compile(r"checkpoint-(\d{4,})-(\d{8,})\.safetensors")
_UNFINISHED, _UPLOADING, _UPLOADED = ".sagemaker-ignore", ".sagemaker-uploading", ".sagemaker-uploaded"
_MAX_SHARE = 0.02  # of the time that may go into saving at the ends of short epochs


class Position(NamedTuple):
    """The step that comes next. Epochs count from 1, the steps of an epoch from 0."""

    epoch: int
    step: int

    @property
    def file_name(self) -> str:
        """Name of the checkpoint's file."""
        return f"checkpoint-{self.epoch:04}-{self.step:08}.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training: ``header`` is JSON; ``tensors`` are by name, on the CPU once they are read."""

    position: Position
    header: str
    tensors: Mapping[str, Tensor]


class _DamagedError(Exception):
    """A file that is not the checkpoint that was written."""


class CheckpointFolder:
    """The checkpoints in a folder. Other files in it are left alone."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn = path, warn
        self._damaged: set[Position] = set()

    def read_newest(self, parse: Callable[[str], object]) -> Checkpoint | None:
        """Read the newest whole checkpoint; None if there is none. Each one passed over is a warning.

        Args:
            parse: raises ValueError for a header that this program did not write.
        """
        for leftover in self._path.glob(f"checkpoint-*.safetensors{_UNFINISHED}"):
            leftover.unlink()
        for position in sorted(self._positions(), reverse=True):
            path = self._path / position.file_name
            try:
                checkpoint = _read(path, position)
                parse(checkpoint.header)
                return checkpoint
            except ValueError:
                self._pass_over(position, "another version of this program wrote it")
            except _DamagedError as damage:
                self._pass_over(position, f"it is damaged: {damage}")
        return None

    def _pass_over(self, position: Position, reason: str) -> None:
        self._damaged.add(position)
        self._warn(f"checkpoint {self._path / position.file_name} is passed over, since {reason}")

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete those that are no longer needed.

        Raises:
            OSError: it can't be written; earlier checkpoints are still there.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        path = self._path / checkpoint.position.file_name
        unfinished = path.with_name(path.name + _UNFINISHED)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        metadata = {"state": checkpoint.header, "digest": _digest(checkpoint.header, tensors)}
        try:
            save_file(tensors, unfinished, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        _sync(unfinished)
        # The marker, if there is one, is of a damaged file of this name.
        _marker(path, _UPLOADED).unlink(missing_ok=True)
        unfinished.replace(path)
        _sync(self._path)
        self._damaged.discard(checkpoint.position)
        self._delete_old()

    def _delete_old(self) -> None:
        """Keep two; where uploads are marked, also the newest uploaded one and those being uploaded.

        On Spot capacity only what has been uploaded outlives the host.
        """
        positions = sorted(self._positions() - self._damaged)
        paths = [self._path / position.file_name for position in positions]
        uploaded = [path for path in paths if _marker(path, _UPLOADED).exists()]
        kept = {*paths[-2:], *uploaded[-1:], *(path for path in paths if _marker(path, _UPLOADING).exists())}
        for path in paths:
            if path not in kept:
                path.unlink(missing_ok=True)
                _marker(path, _UPLOADED).unlink(missing_ok=True)

    def _positions(self) -> set[Position]:
        if not self._path.is_dir():
            return set()
        matches = (_NAME.fullmatch(path.name) for path in self._path.iterdir() if path.is_file())
        return {Position(int(match[1]), int(match[2])) for match in matches if match}


def _marker(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync(path: Path) -> None:
    """Write a file, or the names in a folder, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, position: Position) -> Checkpoint:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise _DamagedError(error) from None
    header = metadata.get("state", "")
    if metadata.get("digest") != _digest(header, tensors):
        raise _DamagedError("its content does not have the digest in it")
    return Checkpoint(position, header, tensors)


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    content = blake2b(header.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of named tensors."""
    return _digest("", {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


class CheckpointSaver:
    """Saves checkpoints on a thread of its own, when they are due.

    A checkpoint is due every ``interval_s``, and at the end of an epoch unless epochs are so short that saving would
    take more than 2 % of the time. While one is being written the next is skipped.

    Attributes:
        cost_s: seconds that the last one took, from its tensors' copies to the synced file.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        *,
        interval_s: float,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._interval_s, self._warn, self._clock = folder, interval_s, warn, clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._saved_at = clock()
        self.cost_s = 0.0

    def is_due(self, *, at_epoch_end: bool) -> bool:
        """Whether the state should be saved now."""
        if self._writing is not None and not self._writing.done():
            return False
        elapsed_s = self._clock() - self._saved_at
        return elapsed_s >= self._interval_s or (at_epoch_end and elapsed_s >= self.spacing_s)

    @property
    def spacing_s(self) -> float:
        """Shortest time between the checkpoints at the ends of epochs."""
        return self.cost_s / _MAX_SHARE

    def save(self, take: Callable[[], Checkpoint]) -> None:
        """Take the state, whose tensors must not change afterwards, and write it in the background."""
        started_s = self._clock()
        checkpoint = take()
        self._saved_at = self._clock()
        self._writing = self._executor.submit(self._write, checkpoint, self._saved_at - started_s)

    def save_and_wait(self, take: Callable[[], Checkpoint]) -> None:
        """Take the state and write it, after one that is being written."""
        self.save(take)
        self.wait()

    def wait(self) -> None:
        """Wait for what is being written."""
        if self._writing is not None:
            self._writing.result()

    def close(self) -> None:
        """Wait for what is being written, and end the thread."""
        self._executor.shutdown()

    def _write(self, checkpoint: Checkpoint, taken_s: float) -> None:
        started_s, problem = self._clock(), f"checkpoint {checkpoint.position.file_name} could not be written"
        with failure_as_warning(self._warn, problem):
            try:
                self._folder.write(checkpoint)
            except OSError as error:
                self._warn(f"{problem}: {error}")
        self.cost_s = taken_s + self._clock() - started_s


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with ``prefix/`` before their names."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix/``, without it."""
    return {name.removeprefix(f"{prefix}/"): one for name, one in tensors.items() if name.startswith(f"{prefix}/")}


def to_bytes(tensor: Tensor) -> bytes:
    """Return the content of a uint8 tensor (N,)."""
    return tensor.numpy().tobytes()


def from_bytes(content: bytes) -> Tensor:
    """Return bytes as a uint8 tensor (N,)."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)
