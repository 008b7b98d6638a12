"""Writer of scalars to TensorBoard event files.

Implemented here because torch's writer needs the package tensorboard, which is not in the image, and smdebug's takes
0.7 s to import. The format is TensorFlow's ``tfrecord`` around ``event.proto``, of which scalars need four fields.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901 - Castagnoli polynomial, reversed
        table.append(byte)
    return tuple(table)


_CRC_TABLE = _crc_table()


class EventFile:
    """An event file in a folder, created when the first scalars are added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._path: Path | None = None

    def add(self, step: int, scalars: Mapping[str, float], at: float) -> None:
        """Add scalars by tag; ``at`` is the time in seconds since 1970."""
        if self._file is None:
            self._file = self._open()
        values = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in scalars.items())
        self._file.write(_record(_double(1, at) + _integer(2, step) + _bytes(5, values)))

    def flush(self) -> None:
        """Flush buffered events to the file."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file if one was created."""
        if self._file is not None:
            self._file.close()

    def content(self) -> bytes:
        """Return the file's name and its content so far, for :meth:`restore`; empty if there is no file."""
        self.flush()
        return b"" if self._path is None else self._path.name.encode() + b"\n" + self._path.read_bytes()

    def restore(self, content: bytes) -> None:
        """Replace the file, or write it anew, and add to it from now on."""
        name, _, events = content.partition(b"\n")
        if not name:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / name.decode()
        self._path.write_bytes(events)
        self._file = self._path.open("ab")

    def _open(self) -> IO[bytes]:
        now = time.time()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}"
        file = self._path.open("wb")
        file.write(_record(_double(1, now) + _bytes(3, b"brain.Event:2")))
        return file


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
