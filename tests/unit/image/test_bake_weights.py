"""The download of weights into the image: its table, checked hashes, an unreachable hub."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from torchvision import models

from classifier.contract.architectures import ARCHITECTURES
from support.hub import HOST, running_hub

DOCKER = Path(__file__).resolve().parents[3] / "docker"


def bake(script: Path, folder: Path, *names: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(script), str(folder), *names]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


def test_table_lists_the_default_weights_of_every_architecture() -> None:
    expected = [f"{name} {models.get_model_weights(name)['DEFAULT'].url}" for name in ARCHITECTURES]
    assert (DOCKER / "weights.txt").read_text(encoding="ascii").splitlines() == expected


def test_weights_are_downloaded_and_their_hashes_checked(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    start = hashlib.sha256(content).hexdigest()[:8]
    good, bad = f"good-{start}.pth", f"bad-{'0' * 8}.pth"
    script = Path(shutil.copy(DOCKER / "bake_weights.py", tmp_path))
    lines = [f"{name.partition('-')[0]} https://{HOST}/models/{name}\n" for name in (good, bad, "gone-12345678.pth")]
    (tmp_path / "weights.txt").write_text("".join(lines), encoding="ascii")
    folder = tmp_path / "hub" / "checkpoints"
    with running_hub(tmp_path, {good: content, bad: content}) as hub:
        assert bake(script, folder, "good", **hub) == (0, f"bake_weights: {good}, 3 MB\n")
        code, log = bake(script, folder, "bad", **hub)
        assert code == 1
        assert "which should begin with 00000000" in log
        code, log = bake(script, folder, "gone", **hub)
        assert code == 1
        assert "can't download the weights of gone (Not Found)" in log
    assert [path.name for path in folder.iterdir()] == [good]
    assert (folder / good).read_bytes() == content


def test_unreachable_hub_is_an_error_with_the_alternative(tmp_path: Path) -> None:
    code, log = bake(DOCKER / "bake_weights.py", tmp_path, "resnet18", https_proxy="http://127.0.0.1:9")
    assert code == 1
    assert "Traceback" not in log
    assert "--build-arg BAKED_WEIGHTS= " in log


def test_unknown_model_is_an_error_before_any_download(tmp_path: Path) -> None:
    code, log = bake(DOCKER / "bake_weights.py", tmp_path, "resnet18", "resnet19", https_proxy="http://127.0.0.1:9")
    assert code == 1
    assert log.startswith("bake_weights: unknown model 'resnet19'; choose from alexnet, ")


def test_nothing_is_downloaded_for_an_image_without_weights(tmp_path: Path) -> None:
    assert bake(DOCKER / "bake_weights.py", tmp_path / "empty", https_proxy="http://127.0.0.1:9") == (0, "")
    assert list((tmp_path / "empty").iterdir()) == []
