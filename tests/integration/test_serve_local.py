"""``local_test/serve_local.sh`` and ``predict.sh``, from a trained model to the label of a photo."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.jobs import Platform
from support.servers import addresses, free_port

LOCAL_TEST = Path(__file__).resolve().parents[2] / "local_test"


def predict(*photos: Path, port: int) -> subprocess.CompletedProcess[str]:
    command = [LOCAL_TEST / "predict.sh", "--port", str(port), *photos]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def predict_until_read(photo: Path, port: int) -> str:
    """The stderr of a run whose reader closes the pipe after the first of many labels, as ``head`` does."""
    command = [LOCAL_TEST / "predict.sh", "--port", str(port), *[photo] * 20]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stderr:
        process.stdout.readline()
        process.stdout.close()
        return process.stderr.read()


def wait_for(process: subprocess.Popen[bytes], photo: Path, port: int) -> subprocess.CompletedProcess[str]:
    deadline = time.monotonic() + 60
    while (done := predict(photo, port=port)).returncode:
        assert process.poll() is None
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)
    return done


@pytest.mark.slow
@pytest.mark.gate
def test_trained_model_labels_photos(platform: Platform, image_folder: Path) -> None:
    job = platform.train({"train": image_folder}, model="resnet18", epochs="8", lr="0.001", optimize_for_cpu="true")
    assert job.exit_code == 0
    port, photo = free_port(), image_folder / "disc" / "0.jpg"
    command = [LOCAL_TEST / "serve_local.sh", "--output", platform.paths.base, "--port", str(port)]
    environment = {**os.environ, "SERVE_METRICS_PORT": "0"}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.DEVNULL)
    try:
        assert wait_for(process, photo, port).stdout.startswith("0.jpg  disc ")
        assert addresses(port) == {"127.0.0.1"}
        (image_folder / "notes.txt").write_text("no photo")
        done = predict(photo, image_folder / "notes.txt", image_folder / "none.jpg", port=port)
        assert done.returncode == 1
        assert done.stdout.startswith("0.jpg      disc ")
        assert done.stderr.splitlines() == [
            "notes.txt  rejected (422): not an image: 8 bytes that begin with b'no photo'",
            "none.jpg   can't be read: No such file or directory",
        ]
        assert predict_until_read(photo, port) == ""
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_error_says_how_to_get_a_server_and_a_model(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"")
    done = predict(photo, port=free_port())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("start one with local_test/serve_local.sh\n")
    command = [str(LOCAL_TEST / "serve_local.sh"), "--output", str(tmp_path)]
    serve = subprocess.run(command, capture_output=True, text=True, check=False)
    assert serve.returncode == 1
    assert serve.stderr == f"serve_local: {tmp_path}/model has no model; train one with local_test/train_local.sh\n"
