"""build_and_push.sh against moto's ECR, with a fake ``docker`` that registers a manifest instead of pushing."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Logs its arguments, and for `docker push` puts an image into ECR.
DOCKER = """#!/bin/sh
echo "$*" >> "{folder}/calls"
case "$1" in
login) cat > "{folder}/password" ;;
push)
    repository=${{2##*/}}
    exec {python} - "${{repository%:*}}" "${{repository##*:}}" <<'END'
import sys, boto3
boto3.client("ecr").put_image(
    repositoryName=sys.argv[1],
    imageTag=sys.argv[2],
    imageManifest='{{"schemaVersion": 2, "config": {{}}}}',
    imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
)
END
    ;;
esac
"""


@pytest.fixture
def docker(shell: Any, tmp_path: Path) -> Path:
    """The folder to which the fake Docker logs its calls."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "docker"
    program.write_text(DOCKER.format(folder=tmp_path, python=ROOT / ".venv/bin/python"), encoding="utf-8")
    program.chmod(0o755)
    shell.environment["PATH"] = f"{tmp_path / 'bin'}:{shell.environment['PATH']}"
    return tmp_path


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
    calls = (docker / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[0].startswith("build --tag dogs:v1 --file ")
    assert "--build-arg BAKED_WEIGHTS=" in calls[0]
    assert calls[1].startswith("login --username AWS --password-stdin https://123456789012.dkr.ecr")
    assert calls[2:] == [f"tag dogs:v1 {registry}/dogs:v1", f"push {registry}/dogs:v1"]
    assert (docker / "password").read_text(encoding="utf-8")
    repository = shell.client("ecr").describe_repositories(repositoryNames=["dogs"])["repositories"][0]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
    again = push(shell, "v1", "--repository", "dogs")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert (docker / "calls").read_text(encoding="utf-8").splitlines() == calls


def test_missing_docker_is_an_error(shell: Any, tmp_path: Path) -> None:
    for name in ("git", "python3", "sh", "dirname", "cmp", "sed"):
        found = subprocess.run(["which", name], check=True, capture_output=True, text=True).stdout.strip()
        (tmp_path / name).symlink_to(found)
    shell.environment["PATH"] = str(tmp_path)
    refused = push(shell, "v1", "--repository", "cats")
    assert refused.returncode == 1
    assert refused.stderr.endswith("command 'docker' not found, which builds the image: install Docker\n")
