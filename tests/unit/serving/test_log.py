"""The log that never blocks its callers."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from classifier.serving.log import ATOMIC_BYTES, LineWriter

PIPE_BYTES = 64 * 1024
FLUSH_S = 60.0

PROGRAM = """
import logging, os, sys, threading, warnings
from classifier.serving.log import log_line, redirect_logging

redirect_logging("warning")
log_line(message="parent", none=None)
if os.fork() == 0:
    log_line(message="child")
    sys.exit()
os.wait()
warnings.warn("a warning")
logging.getLogger("PIL").error("an error of %s", "Pillow")
logging.getLogger("PIL").info("not logged")

def fail():
    raise ValueError("a failure")

thread = threading.Thread(target=fail, name="failing")
thread.start()
thread.join()
try:
    fail()
except ValueError:
    logging.getLogger("x").exception("caught")
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's ends for reading and writing."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read_all(descriptor: int, writer: LineWriter) -> list[str]:
    """Read what was written to a pipe, until the writer has nothing left."""
    data = b""
    os.set_blocking(descriptor, False)
    while True:
        is_done = writer.flush(0)
        try:
            data += os.read(descriptor, PIPE_BYTES)
        except BlockingIOError:
            if is_done:
                return data.decode().splitlines()


def test_writing_does_not_wait_for_the_reader(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor)
    lines = [f"{number} {'x' * 100}" for number in range(5000)]
    for line in lines:
        writer.write(line)
    assert len(lines) * 100 > 4 * PIPE_BYTES
    assert not writer.flush(0.05)
    assert read_all(reader, writer) == lines
    assert writer.num_dropped == 0


def test_lines_without_room_are_dropped_and_reported_in_their_place(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor, max_lines=2000)
    for number in range(10_000):
        writer.write(f"{number} {'x' * 100}")
    assert writer.num_dropped > 5000
    written = read_all(reader, writer)
    writer.write("10000 after")
    written += read_all(reader, writer)
    expected = 0
    for line in written:
        if line.startswith("{"):
            document = json.loads(line)
            assert document["message"] == "log lines dropped"
            expected += document["count"]
        else:
            assert int(line.split()[0]) == expected
            expected += 1
    assert expected == 10_001
    assert len([line for line in written if line.startswith("{")]) <= 5


def test_bytes_in_memory_are_bounded(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = LineWriter(descriptor, max_bytes=1_000_000)
    for _ in range(100):
        writer.write("x" * 50_000)
    assert 100 - 20 - 2 * PIPE_BYTES // 50_000 <= writer.num_dropped <= 81
    read_all(reader, writer)
    writer.write("x" * 999_999)
    assert "x" * 999_999 in read_all(reader, writer)


def test_lines_reach_the_file_whole() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        writer = LineWriter(ours.fileno())
        for number in range(100):
            writer.write(f"{number} {'x' * 500}")
        writer.write("x" * 10_000)
        packets = []
        while not packets or len(packets[-1]) < 10_000:
            packets.append(theirs.recv(PIPE_BYTES))
    assert all(packet.endswith(b"\n") for packet in packets)
    assert max(len(packet) for packet in packets[:-1]) <= ATOMIC_BYTES
    assert len(packets) < 40
    assert len(b"".join(packets).splitlines()) == 101


def test_reader_that_is_gone_is_no_error() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = LineWriter(descriptor)
    for _ in range(3):
        writer.write("x")
        assert writer.flush(FLUSH_S)
    assert writer.num_dropped == 3
    os.close(descriptor)


def test_file_that_another_process_made_non_blocking_is_written_completely(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    os.set_blocking(descriptor, False)
    writer = LineWriter(descriptor)
    writer.write("x" * 3 * PIPE_BYTES)
    assert not writer.flush(0.05)
    assert read_all(reader, writer) == ["x" * 3 * PIPE_BYTES]


def test_everything_that_python_reports_becomes_a_line_of_json() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    messages = [one["message"].split("\n")[0] for one in lines]
    assert sorted(messages[:2]) == ["child", "parent"]
    assert messages[2].endswith("UserWarning: a warning")
    assert messages[3:] == ["an error of Pillow", "a thread failed", "caught"]
    assert [one.get("logger") for one in lines[2:]] == ["py.warnings", "PIL", None, "x"]
    assert [one.get("level") for one in lines[2:]] == ["warning", "error", "error", "error"]
    assert lines[4]["thread"] == "failing"
    for one in lines[4:]:
        assert one["traceback"].endswith("ValueError: a failure\n")
    assert "none" not in lines[0]


def test_process_ends_while_nobody_reads_its_log() -> None:
    program = "from classifier.serving.log import log_line\nfor _ in range(3000): log_line(message='x' * 100)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.wait(60) == 0
