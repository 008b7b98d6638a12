"""Writer of a saved step's two files, of events and their index, in smdebug's format.

smdebug passes each tensor through a Python implementation of protocol buffers and a queue to a thread, which takes
longer than a small network's step: that saves hundreds of tensors. Here their few messages are encoded directly.
"""

import json
import struct
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from classifier.debugging.library import (
    CHECKSUM_MAGIC_BYTES,
    IndexFileLocationUtils,
    ModeKeys,
    TensorFileLocation,
    masked_crc32c,
)

# Numbers of the types in TensorFlow's messages.
_TYPES = {
    **{
        "float32": 1,
        "float64": 2,
        "int32": 3,
        "uint8": 4,
        "int16": 5,
        "int8": 6,
        "complex64": 8,
        "int64": 9,
        "bool": 10,
    },
    **{"uint16": 17, "complex128": 18, "float16": 19, "uint32": 22, "uint64": 23},
}
_FOOTER = struct.pack("I", masked_crc32c(CHECKSUM_MAGIC_BYTES))  # as smdebug's: contents have no checksum


def write_step(
    folder: Path,
    step: int,
    worker: str,
    mode: tuple[ModeKeys, int],
    tensors: Sequence[tuple[str, np.ndarray]],
    shapes: Sequence[tuple[str, tuple[int, ...]]] = (),
) -> float:
    """Write the tensors of a global step, so that smdebug's readers find them, and return the time of writing.

    Args:
        mode: the mode, and the step's number within it.
        tensors: names and values.
        shapes: of tensors whose shape is saved.
    """
    now_s = time.time()
    events = Path(TensorFileLocation(step_num=step, worker_name=worker).get_file_location(str(folder)))
    index = Path(IndexFileLocationUtils.get_index_key_for_step(str(folder), step, worker))
    records, entries, position = [], [], 0
    metadata = _field(9, _plugin("mode_step", str(mode[1])) + _plugin("mode", str(mode[0].value)))
    for name, value in tensors:
        record = _record(_event(now_s, step, _field(1, name.encode()) + _tensor(name, value) + metadata))
        entries.append({"tensorname": name, "start_idx": position, "length": len(record)})
        records.append(record)
        position += len(record)
    known = [{"tensorname": name, "originalname": name, "shape": shape} for name, shape in shapes]
    meta = {"mode": mode[0].name, "mode_step": mode[1], "event_file_name": str(events.relative_to(folder))}
    _write(events, b"".join(records))
    # Last, since readers look for the index.
    _write(index, json.dumps({"meta": meta, "tensor_payload": entries, "shape_payload": known}).encode())
    return now_s


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    unfinished.replace(path)


def _record(content: bytes) -> bytes:
    return _header(len(content)) + content + _FOOTER


@cache
def _header(length: int) -> bytes:
    header = struct.pack("Q", length)
    return header + struct.pack("I", masked_crc32c(header))


def _event(now_s: float, step: int, value: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", now_s) + b"\x10" + _varint(step) + _field(5, _field(1, value))


def _plugin(name: str, content: str) -> bytes:
    return _field(1, _field(1, name.encode()) + _field(2, content.encode()))


def _tensor(name: str, value: np.ndarray) -> bytes:
    return _field(8, _tensor_header(name, value.dtype, value.shape) + _field(4, value.tobytes()))


@cache
def _tensor_header(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Encode type and shape, which are the same at each step."""
    dimensions = b"".join(_field(2, b"\x08" + _varint(size) + _field(2, f"{name}_{size}".encode())) for size in shape)
    return b"\x08" + _varint(_TYPES[dtype.name]) + _field(2, dimensions)


def _field(number: int, content: bytes) -> bytes:
    """Encode a field of bytes, or of a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encode a number that is not negative, 7 bits a byte."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
