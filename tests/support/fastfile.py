"""A read-only FUSE mount of a folder that records how it is read, as FastFile mode's mount would be.

Run as a process of its own, ``python -m support.fastfile SOURCE MOUNT RECORD``, which ends when MOUNT is unmounted.
Reads reach it as the program makes them, since it tells the kernel to cache nothing.
"""

import ctypes
import errno
import json
import os
import stat
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOOKUP, FORGET, GETATTR, STATFS, OPEN, READ, RELEASE = 1, 2, 3, 17, 14, 15, 18
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, DESTROY, BATCH_FORGET = 25, 26, 27, 28, 29, 38, 42
_UNANSWERED = {FORGET, BATCH_FORGET}
_DIRECT_IO = 1
_MNT_DETACH = 2
_VALID_S = 3600  # names and attributes may be cached, contents not
_MAX_REQUEST = 1 << 20


@dataclass(frozen=True)
class Record:
    """How a mount was read, by path below it.

    Attributes:
        listings: how often each folder was listed.
        reads: for each time that a file was opened, the offset and the number of bytes of each read.
    """

    listings: dict[str, int]
    reads: dict[str, list[list[tuple[int, int]]]]


def can_mount() -> bool:
    """Whether this process may mount FUSE file systems."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK) and sys.platform == "linux"


@contextmanager
def mounted(source: Path, mount: Path) -> Iterator[Record]:
    """Mount a folder. The record that it yields is filled in when the block ends."""
    mount.mkdir()
    path = mount.with_suffix(".json")
    command = [sys.executable, "-m", "support.fastfile", str(source), str(mount), str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    server = subprocess.Popen(command, env=environment)
    try:
        while not os.path.ismount(mount):
            assert server.poll() is None, "the mount failed"
            time.sleep(0.01)
        record = Record({}, {})
        yield record
    finally:
        ctypes.CDLL(None).umount2(str(mount).encode(), _MNT_DETACH)
        server.wait(30)
    listings, reads = json.loads(path.read_text())
    record.listings.update(listings)
    record.reads.update({name: [[(at, size) for at, size in one] for one in opened] for name, opened in reads.items()})


class _Server:
    def __init__(self, source: str) -> None:
        self._source = source
        self._paths, self._nodes = {1: ""}, {"": 1}
        self._open_files: dict[int, list[tuple[int, int]]] = {}
        self.listings: Counter[str] = Counter()
        self.reads: dict[str, list[list[tuple[int, int]]]] = {}

    def serve(self, device: int) -> None:
        while True:
            try:
                request = os.read(device, _MAX_REQUEST + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                raise
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode in _UNANSWERED:
                continue
            code, content = 0, b""
            try:
                content = self._answer(opcode, node, request[40:])
            except OSError as error:
                code = -(error.errno or errno.EIO)
            os.write(device, struct.pack("<IiQ", 16 + len(content), code, unique) + content)

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes:
        path = self._paths.get(node, "")
        answers = {
            INIT: lambda: struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 12, 4096, 1, 0, 0, 0),
            LOOKUP: lambda: self._look_up(f"{path}/{os.fsdecode(body.rstrip(bytes(1)))}"),
            GETATTR: lambda: struct.pack("<QII", _VALID_S, 0, 0) + self._attributes(path),
            OPENDIR: lambda: self._open_folder(path),
            READDIR: lambda: self._list(path, *struct.unpack_from("<8xQI", body)),
            OPEN: lambda: self._open(path),
            READ: lambda: self._read(*struct.unpack_from("<QQI", body)),
            RELEASE: lambda: self._release(*struct.unpack_from("<Q", body)),
            STATFS: lambda: bytes(80),
            **dict.fromkeys((FLUSH, RELEASEDIR, DESTROY), bytes),
        }
        if opcode not in answers:
            raise OSError(errno.ENOSYS, "not implemented")
        return answers[opcode]()

    def _look_up(self, path: str) -> bytes:
        attributes = self._attributes(path)
        return struct.pack("<QQQQII", self._node(path), 0, _VALID_S, _VALID_S, 0, 0) + attributes

    def _open_folder(self, path: str) -> bytes:
        self.listings[path.lstrip("/")] += 1
        return struct.pack("<QII", 0, 0, 0)

    def _open(self, path: str) -> bytes:
        descriptor = os.open(self._source + path, os.O_RDONLY)
        reads = self._open_files[descriptor] = []
        self.reads.setdefault(path.lstrip("/"), []).append(reads)
        return struct.pack("<QII", descriptor, _DIRECT_IO, 0)

    def _read(self, descriptor: int, offset: int, size: int) -> bytes:
        data = os.pread(descriptor, size, offset)
        self._open_files[descriptor].append((offset, len(data)))
        return data

    def _release(self, descriptor: int) -> bytes:
        os.close(descriptor)
        del self._open_files[descriptor]
        return b""

    def _node(self, path: str) -> int:
        if path not in self._nodes:
            self._nodes[path] = len(self._nodes) + 1
            self._paths[self._nodes[path]] = path
        return self._nodes[path]

    def _attributes(self, path: str) -> bytes:
        found = Path(self._source + path).stat()
        times = (int(found.st_mtime),) * 3
        return struct.pack(
            "<QQQQQQIIIIIIIIII",
            *(self._node(path), found.st_size, found.st_blocks, *times, 0, 0, 0),
            *(found.st_mode & ~0o222, found.st_nlink, 0, 0, 0, 4096, 0),
        )

    def _list(self, path: str, offset: int, size: int) -> bytes:
        listed = b""
        with os.scandir(self._source + path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for number, entry in enumerate(found[offset:], offset + 1):
            name = os.fsencode(entry.name)
            kind = stat.S_IFDIR if entry.is_dir() else stat.S_IFREG
            record = struct.pack("<QQII", self._node(f"{path}/{entry.name}"), number, len(name), kind >> 12) + name
            record += bytes(-len(record) % 8)
            if len(listed) + len(record) > size:
                break
            listed += record
        return listed


def main() -> None:
    source, mount, record = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"photos", mount.encode(), b"fuse", 1, options):  # 1: read-only
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    server = _Server(source)
    server.serve(device)
    Path(record).write_text(json.dumps([server.listings, server.reads]))


if __name__ == "__main__":
    main()
