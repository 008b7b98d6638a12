"""The build command: the revision in the labels, the pinned base image; the suite of the image without an engine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT.parent / "shared/tools/docker-engine"
PINNED = next(
    line.removeprefix("ARG BASE_IMAGE=")
    for line in (ROOT / "docker/Dockerfile").read_text(encoding="utf-8").splitlines()
    if line.startswith("ARG BASE_IMAGE=")
)
# Logs its arguments; has no image, and pulls one if there is a file `registry`.
DOCKER = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
case "$1 $2" in "image inspect") exit 1 ;; "pull "*) test -e "$(dirname "$0")/registry" ;; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the files of the image, and a program `docker` in its folder `bin`."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "docker", root / "docker")
    (root / "container" / "classifier").mkdir(parents=True)
    (root / "container" / "classifier" / "train.py").touch()
    (root / "README.md").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER, encoding="utf-8")
    (programs / "docker").chmod(0o755)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "First"]):
        git(root, *command)
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "core.hooksPath=/dev/null")
    return subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def build(root: Path, *options: str) -> str:
    """Build with these options; the first `docker build`."""
    programs = root.parent / "bin"
    (programs / "calls").unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run([root / "docker/build.sh", "dogs", *options], check=True, env=environment, capture_output=True)
    calls = (programs / "calls").read_text(encoding="utf-8").splitlines()
    return next(call for call in calls if call.startswith("build "))


def test_image_is_built_for_the_hosts_platform_from_the_pinned_base(checkout: Path) -> None:
    (checkout.parent / "bin" / "registry").touch()
    call = build(checkout, "--build-arg", "BAKED_WEIGHTS=")
    assert call.startswith("build --platform linux/amd64 --tag dogs --file docker/Dockerfile ")
    assert f"BASE_IMAGE={PINNED} " in call
    assert call.endswith("--build-arg BAKED_WEIGHTS= .")
    assert len(PINNED.partition("@sha256:")[2]) == 64


def test_base_of_this_machine_is_used_without_a_registry(checkout: Path) -> None:
    assert f"BASE_IMAGE={PINNED.partition('@')[0]} " in build(checkout)


def test_revision_says_whether_the_image_differs_from_the_commit(checkout: Path) -> None:
    revision = git(checkout, "rev-parse", "HEAD")
    assert f"REVISION={revision} " in build(checkout)
    (checkout / "README.md").write_text("not in the image", encoding="utf-8")
    assert f"REVISION={revision} " in build(checkout)
    new = checkout / "container" / "classifier" / "new.py"
    new.touch()
    assert f"REVISION={revision}-dirty " in build(checkout)
    new.unlink()
    (checkout / "docker" / "requirements.txt").write_text("", encoding="utf-8")
    assert f"REVISION={revision}-dirty " in build(checkout)
    shutil.rmtree(checkout / ".git")
    assert "REVISION=unknown " in build(checkout)


@pytest.mark.skipif(not TOOL.exists(), reason="only where a tool starts Docker engines")
@pytest.mark.parametrize(("variables", "code"), [({"CI": "true"}, 1), ({}, 0)])
def test_image_suite_without_an_engine_fails_where_one_is_expected(variables: dict[str, str], code: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "IMAGE")}
    environment |= {"PATH": "/nonexistent", **variables}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/docker/test_image.py",
        "-k",
        "size",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "no Docker engine is running" in done.stdout
