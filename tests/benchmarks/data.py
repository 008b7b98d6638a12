"""How fast many small photos are prepared and uploaded, beside ``cp -r`` and ``aws s3 sync`` in the same run.

  .venv/bin/python tests/benchmarks/data.py --photos 100000 --synced 10000

Everything stays on this machine: S3 is moto's server, a process of its own. It is slow, and takes most of the time of
both uploads; ``synced`` is the number of files that are given to ``aws s3 sync`` (it must be installed), between two
uploads of as many of ours. Peak memory is that of a command and its processes together, also for a tenth of the photos.
"""

import argparse
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
_NUM_CLASSES = 100
_SIDE = 64


def main() -> None:
    options = _parse()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_photos(folder / "photos", options.photos)
        write_photos(folder / "few", options.photos // 10)
        rate = measure_preparing(folder, options.photos)
        if rate:
            measure_uploading(folder, options.photos, options.synced)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--synced", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="where to work, instead of the system's temporary folder")
    return parser.parse_args()


def write_photos(folder: Path, num: int) -> None:
    """Small JPEGs, all different, in a hundred classes."""
    rng = np.random.default_rng(0)
    for label in range(_NUM_CLASSES):
        (folder / f"{label:03}.class").mkdir(parents=True)
    for number in range(num):
        pixels = rng.integers(40, 216, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        (folder / f"{number % _NUM_CLASSES:03}.class" / f"{number:06}.jpg").write_bytes(buffer.getvalue())


def measure_preparing(folder: Path, num: int) -> float:
    _, _, few_peak = run(["prepare_data.py", folder / "few", folder / "few-prepared"])
    copied_s, _, _ = run(["cp", "-r", folder / "photos", folder / "copy"])
    prepared_s, cpu_s, peak = run(["prepare_data.py", folder / "photos", folder / "prepared"])
    again_s, _, _ = run(["cp", "-r", folder / "photos", folder / "copy2"])
    shutil.rmtree(folder / "copy")
    shutil.rmtree(folder / "copy2")
    say("cp -r", num, (copied_s + again_s) / 2)
    say("prepare", num, prepared_s, f"{cpu_s / num * 1e3:.2f} ms of CPU a photo")
    print(f"prepare takes {prepared_s / ((copied_s + again_s) / 2):.2f} × as long as cp -r")
    print(f"peak memory: {few_peak / 1e6:,.0f} MB for {num // 10:,} photos, {peak / 1e6:,.0f} MB for {num:,}")
    return num / prepared_s


def measure_uploading(folder: Path, num: int, synced: int) -> None:
    sample = folder / "sample"
    write_photos(sample, synced)
    with moto_server() as url:
        aws = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        aws |= {"AWS_DEFAULT_REGION": "us-east-1"}
        run(["aws", "s3", "mb", "s3://benchmark"], aws)
        before_s, cpu_s, few_peak = run(["upload_data.py", sample, "s3://benchmark/first"], aws)
        sync_s, sync_cpu_s, sync_peak = run(["aws", "s3", "sync", "--quiet", sample, "s3://benchmark/sync"], aws)
        after_s, _, _ = run(["upload_data.py", sample, "s3://benchmark/second"], aws)
        ours_s = (before_s + after_s) / 2
        say("upload", synced, ours_s, f"{cpu_s / synced * 1e3:.2f} ms of CPU a file")
        say("aws s3 sync", synced, sync_s, f"{sync_cpu_s / synced * 1e3:.2f} ms of CPU a file")
        print(f"upload is {sync_s / ours_s:.2f} × as fast as aws s3 sync")
        all_s, _, peak = run(["upload_data.py", folder / "prepared", "s3://benchmark/all"], aws)
        say("upload of all", num, all_s)
        print(
            f"peak memory: {few_peak / 1e6:,.0f} MB for {synced:,} files, {peak / 1e6:,.0f} MB for {num:,}; "
            f"aws s3 sync {sync_peak / 1e6:,.0f} MB for {synced:,}"
        )
        again_s, _, _ = run(["upload_data.py", folder / "prepared", "s3://benchmark/all"], aws)
        say("upload again, all there", num, again_s)


def say(what: str, num: int, seconds: float, more: str = "") -> None:
    print(f"{what:24} {num:>8,} files  {seconds:8.1f} s  {num / seconds:8,.0f} files/s  {more}", flush=True)


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> tuple[float, float, int]:
    """Seconds of wall clock and of CPU, and the peak memory in bytes."""
    if str(command[0]).endswith(".py"):
        command = [sys.executable, SCRIPTS / command[0], *command[1:]]
    cpu = _cpu_of_children()
    started = time.perf_counter()
    process = subprocess.Popen(
        list(map(str, command)), env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL
    )
    peak = _Peak(process.pid)
    code = process.wait()
    seconds = time.perf_counter() - started
    peak.stop()
    if code:
        sys.exit(f"{command} ended with {code}")
    return seconds, _cpu_of_children() - cpu, peak.bytes


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


class _Peak:
    """The memory of a process and its children, looked at four times a second."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid, self._done = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.25):
            self.bytes = max(self.bytes, sum(_memory(pid) for pid in _family(self._pid)))

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _memory(pid: int) -> int:
    try:
        match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


@contextmanager
def moto_server() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/moto-api/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(url: str) -> None:
    for _ in range(150):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    sys.exit("moto's server does not start")


if __name__ == "__main__":
    main()
