"""Memory, threads and descriptors of a running process, from /proc."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """Resources of a process. ``anonymous``: resident bytes that are not backed by a file."""

    anonymous: int
    num_threads: int
    num_descriptors: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Read the resources of a process.

        Raises:
            OSError: the process has ended.
        """
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(
            anonymous=int(status["RssAnon"].split()[0]) * 1024,
            num_threads=int(status["Threads"]),
            num_descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        )

    def __str__(self) -> str:
        return f"{self.anonymous / 1e6:6.1f} MB, {self.num_threads:3} threads, {self.num_descriptors:3} descriptors"


def reset_peak(pid: int) -> int:
    """Forget the process's peak of resident memory, and return the resident bytes of now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return peak(pid)


def peak(pid: int) -> int:
    """The most bytes that were resident since ``reset_peak``."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def family(pid: int) -> list[int]:
    """The PIDs of a process and all its descendants."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(member for children in lists for child in children.split() for member in family(int(child)))]


def shared_out_memory(pid: int) -> int:
    """Resident bytes of a process and all its descendants; shared memory counts once."""
    return sum(_proportional(member) for member in family(pid))


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
