"""build_and_push.sh against moto's ECR, with a fake ``docker`` that registers a manifest instead of pushing."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.fake_docker import write_manifest

ROOT = Path(__file__).resolve().parents[3]


def push(shell: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "build_and_push.sh"), *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=shell.environment,
        timeout=120,
    )


def test_image_is_built_and_pushed_once_and_its_digest_printed(shell: Any, docker: Path) -> None:
    done = push(shell, "v1", "--repository", "dogs", "--build-arg", "BAKED_WEIGHTS=")
    assert done.returncode == 0, done.stderr
    registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    assert done.stdout.startswith(f"{registry}/dogs@sha256:")
    assert done.stdout.count("\n") == 1
    calls = (docker / "calls").read_text(encoding="utf-8").splitlines()
    build = next(call for call in calls if call.startswith("build "))
    assert build.startswith("build --platform linux/amd64 --tag dogs:v1 --file ")
    assert "--build-arg BAKED_WEIGHTS=" in build
    assert calls[-3].startswith("login --username AWS --password-stdin https://123456789012.dkr.ecr")
    assert calls[-2:] == [f"tag dogs:v1 {registry}/dogs:v1", f"push {registry}/dogs:v1"]
    assert (docker / "password").read_text(encoding="utf-8")
    repository = shell.client("ecr").describe_repositories(repositoryNames=["dogs"])["repositories"][0]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    again = push(shell, "v1", "--repository", "dogs")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "build --platform" not in (docker / "calls").read_text(encoding="utf-8").partition("push ")[2]


@pytest.mark.parametrize(
    ("media_type", "architecture", "message"),
    [
        (
            "application/vnd.oci.image.index.v1+json",
            "amd64",
            "is pushed as application/vnd.oci.image.index",
        ),
        (
            "application/vnd.oci.image.manifest.v1+json",
            "arm64",
            "is an image for linux/arm64, and SageMaker",
        ),
    ],
)
def test_image_that_sagemaker_cannot_run_is_an_error(
    shell: Any, docker: Path, media_type: str, architecture: str, message: str
) -> None:
    write_manifest(docker, media_type)
    shell.cloud.answer("/config", {"os": "linux", "architecture": architecture})
    refused = push(shell, "v1", "--repository", f"birds-{architecture}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert message in refused.stderr


def test_setup_leaves_standard_output_to_the_script_that_starts_it(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    setup = shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$1" in -m) exit 3 ;; --version) echo Python 3.12.0 ;; esac\n', encoding="utf-8")
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    done = subprocess.run([setup], check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert "setup: creating .venv with Python 3.12.0" in done.stderr


def test_missing_docker_is_an_error(shell: Any, tmp_path: Path) -> None:
    for name in ("git", "python3", "sh", "dirname", "cmp", "sed"):
        found = subprocess.run(["which", name], check=True, capture_output=True, text=True).stdout.strip()
        (tmp_path / name).symlink_to(found)
    shell.environment["PATH"] = str(tmp_path)
    refused = push(shell, "v1", "--repository", "cats")
    assert refused.returncode == 1
    assert refused.stderr.endswith("command 'docker' not found, which builds the image: install Docker\n")
