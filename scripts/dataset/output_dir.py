"""OUT, told apart: not there, unfinished (``OUT.part``), finished by us, or somebody else's.

All work is done in ``OUT.part``, which becomes OUT by being renamed at the end: what is called OUT is whole. An
unfinished one is made again by the next run, except for its downloads, which go on; a run that fails leaves only those.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.errors import ConfigError

PREPARED = Path("report", "prepared.json")  # in every finished OUT
_MARK = ".prepare_data"  # in every OUT.part
_DOWNLOADS = "download"


@contextmanager
def open_workplace(out: Path, *, replace: bool) -> Iterator[Path]:
    """Yields the folder to work in; it becomes ``out`` when all went well.

    Raises:
        ConfigError: ``out`` holds something that would be lost, or another run is at work on it.
    """
    _check_free(out, replace)
    part = out.with_name(f"{out.name}.part")
    _check_ours(part)
    part.mkdir(parents=True, exist_ok=True)
    with (part / _MARK).open("w") as mark:
        _lock(mark.fileno(), out)
        _clear(part, keep={_MARK, _DOWNLOADS})
        try:
            yield part
        except BaseException:
            _leave(part)
            raise
        _clear(part, keep={"train", "validation", "test", "shards", "report"})
        _swap(part, out)


def _check_free(out: Path, replace: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / PREPARED).is_file():
        raise ConfigError(f"{out} exists and was not made by this command: name another folder")
    if not replace:
        raise ConfigError(f"{out} is prepared already: name another folder, or say --replace to make it again")


def _check_ours(part: Path) -> None:
    if part.exists() and not (part / _MARK).is_file():
        raise ConfigError(f"{part} is in the way, and was not made by this command: move it")


def _lock(mark: int, out: Path) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another run is preparing {out} right now") from None


def _clear(part: Path, *, keep: set[str]) -> None:
    for entry in part.iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _leave(part: Path) -> None:
    """After a failure or Ctrl-C: only what the next run can use stays."""
    _clear(part, keep={_MARK, _DOWNLOADS})
    if not (part / _DOWNLOADS).exists():
        shutil.rmtree(part)


def _swap(part: Path, out: Path) -> None:
    old = out.with_name(f"{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)
