"""The image's programs as process 1, to which the kernel delivers only signals that have a handler."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.local.opt_ml import lay_out
from support.drawing import write_classes
from support.jobs import TINY
from support.servers import start, write_artifact

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "docker" / "bin"
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child"]
CAN_UNSHARE = subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode == 0
LISTENS = """
import time
from classifier.training.console import StopSignal
stop = StopSignal()
stop.listen()
print("listening", flush=True)
while not stop.received:
    time.sleep(0.01)
print(stop.received, flush=True)
time.sleep(100)
"""


def send_before_start() -> None:
    """Leave a pending SIGTERM to the program that this process becomes, as the shebang's ``env`` does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("program", ["train", "serve"])
def test_sigterm_before_the_first_instruction_ends_the_program(tmp_path: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / program)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path)},
        preexec_fn=send_before_start,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["train", "serve"])
def test_programs_start_with_the_stop_signals_blocked(program: str) -> None:
    interpreter, *_ = (PROGRAMS / program).read_text(encoding="utf-8").splitlines()
    command = interpreter.removeprefix("#!/usr/bin/env -S ").split()
    assert command.pop() == "/opt/venv/bin/python"
    code = "import signal; print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    done = subprocess.run(["env", *command, sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(int(signal.SIGINT)), str(int(signal.SIGTERM))]


@contextmanager
def process_one(*command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a command as process 1 of a namespace; yields ``unshare`` and the PID of the command outside of it."""
    with subprocess.Popen([*NAMESPACE, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not (found := children.read_text(encoding="ascii").split()):
                time.sleep(0.01)
            yield process, int(found[0])
        finally:
            process.kill()


@pytest.mark.skipif(not CAN_UNSHARE, reason="this user can't create PID namespaces")
def test_second_sigterm_ends_a_training_at_once() -> None:
    with process_one(sys.executable, "-c", LISTENS) as (process, pid):
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        os.kill(pid, signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        os.kill(pid, signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_sigterm_while_the_model_loads_ends_the_server(tmp_path: Path) -> None:
    # Without a graph, so that it takes seconds to load.
    write_artifact(tmp_path / "model", architecture="resnet50")
    server = start(tmp_path, tmp_path / "log")
    while not server.workers():
        assert server.process.poll() is None
        time.sleep(0.01)
    server.terminate()
    assert server.wait(60) == 0
    assert server.log.read_text(encoding="utf-8") == ""


@pytest.mark.slow
@pytest.mark.gate
def test_stop_skips_the_conversion(tmp_path: Path) -> None:
    base, parameters = tmp_path / "ml", {**TINY, "epochs": "1000", "optimize_for_cpu": "true"}
    lay_out(base, {"train": write_classes(tmp_path / "photos")}, parameters)
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base)}
    command = [str(Path(sys.executable).with_name("train"))]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        log = next(line for line in process.stdout if line.startswith("epoch"))
        process.send_signal(signal.SIGTERM)
        log += process.stdout.read()
    assert process.returncode == 0
    assert "engines     not compared, because of SIGTERM; serve converts the model when it starts" in log
    assert not {"openvino.xml", "engine.json"} & {path.name for path in (base / "model").iterdir()}
    assert (base / "output" / "data" / "report.html").exists()
