"""The output directory OUT, staged in ``OUT.part`` and renamed when it is complete.

Whatever is called OUT is therefore complete. A failed run leaves only its downloads in ``OUT.part``, which the next run
resumes. Files that this command did not write are never touched.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.errors import ConfigError
from dataset.listing import SPLITS

RECORD = Path("report", "prepared.json")  # in every complete OUT
_MARKER = ".prepare_data"  # in every OUT.part
_DOWNLOADS = "download"


@contextmanager
def stage_output(out: Path, *, replace: bool) -> Iterator[Path]:
    """Yield a working directory that becomes ``out`` if the block succeeds.

    Args:
        replace: whether to replace an ``out`` that this command wrote.

    Raises:
        ConfigError: ``out`` or its working directory holds something that would be lost, or another run is using it.
    """
    _check_out(out, replace)
    part = out.with_name(f"{out.name}.part")
    _check_part(part)
    part.mkdir(parents=True, exist_ok=True)
    with (part / _MARKER).open("w") as marker:
        _lock(marker.fileno(), out)
        _clear(part, keep={_MARKER, _DOWNLOADS})
        try:
            yield part
        except BaseException:
            _clean_up(part)
            raise
        _clear(part, keep={*SPLITS, "shards", "report"})
        _swap(part, out)


def _check_out(out: Path, replace: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECORD).is_file():
        raise ConfigError(f"{out} exists and was not written by this command: choose another folder")
    if not replace:
        raise ConfigError(f"{out} exists already: choose another folder, or pass --replace to write it again")


def _check_part(part: Path) -> None:
    if part.exists() and not (part / _MARKER).is_file():
        raise ConfigError(f"{part} is needed for unfinished work, and was not written by this command: move it away")


def _lock(marker: int, out: Path) -> None:
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"another run is writing {out}: wait for it to finish") from None


def _clear(part: Path, *, keep: set[str]) -> None:
    for entry in part.iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _clean_up(part: Path) -> None:
    """After a failure or Ctrl-C, leave only what the next run can use."""
    _clear(part, keep={_MARKER, _DOWNLOADS})
    if not (part / _DOWNLOADS).exists():
        shutil.rmtree(part)


def _swap(part: Path, out: Path) -> None:
    old = out.with_name(f"{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)
