"""Build the image, push it to ECR tagged with the git revision that it was built from, and print its digest URI.

The repository is created if it does not exist; it scans images on push, and its tags are immutable, so a tag that
exists is not pushed again. Standard output contains only the URI: IMAGE_URI=$(scripts/build_and_push.sh)

Examples:
  scripts/build_and_push.sh
  scripts/build_and_push.sh v1.2 --repository dogs --build-arg BAKED_WEIGHTS=resnet50
  scripts/build_and_push.sh --local
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from aws.clients import client
from aws.errors import UnreachableError
from aws.request_check import check
from classifier.errors import ConfigError
from launch.cli import create_parser, run_command
from launch.platform.ecr import (
    ImageUri,
    check_image,
    ensure_repository,
    find_digest,
    log_in,
    repository_request,
    run_docker,
)
from launch.terminal import as_json, print_status

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("build_and_push", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("build_and_push.sh", __doc__)
    parser.add_argument("tag", nargs="?", metavar="TAG", help="default: the git revision")
    parser.add_argument("--repository", default="image-classifier", metavar="NAME", help="default: %(default)s")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="KEY=VALUE", help="for docker build; repeatable"
    )
    parser.add_argument("--local", action="store_true", help="build the image and do not push it")
    parser.add_argument("--dry-run", action="store_true", help="print the build command and the requests, do nothing")
    parser.add_argument("--region", metavar="NAME", help="AWS region (default: that of the AWS CLI)")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    revision = _git("rev-parse", "HEAD")
    tag = options.tag or _revision_tag(revision, allow_changes=options.local or options.dry_run)
    name = f"{options.repository}:{tag}"
    build = _build_command(name, options.build_arg)
    requests = {"CreateRepository": repository_request(options.repository)}
    check(requests)
    if options.dry_run:
        print(as_json({"docker": build, **requests}))
        return 0
    if options.local:
        run_docker(build)
        run_docker(["docker", "tag", name, options.repository])
        print(options.repository)
        return 0
    ecr = client("ecr", region=options.region)
    address = ensure_repository(ecr, options.repository)
    digest = find_digest(ecr, options.repository, tag)
    if digest:
        print_status(f"build_and_push: {name} exists, and tags are immutable: not pushed again")
    else:
        run_docker(build)
        log_in(ecr)
        run_docker(["docker", "tag", name, f"{address}:{tag}"])
        run_docker(["docker", "push", f"{address}:{tag}"])
        digest = find_digest(ecr, options.repository, tag)
    try:
        check_image(ecr, ImageUri.parse(f"{address}:{tag}"))
    except UnreachableError as error:
        print_status(f"build_and_push: not checked whether SageMaker can run it: {error}")
    print(f"{address}@{digest}" if digest else f"{address}:{tag}")
    return 0


def _build_command(name: str, build_args: Sequence[str]) -> list[str]:
    return [str(ROOT / "docker" / "build.sh"), name, *(part for one in build_args for part in ("--build-arg", one))]


def _revision_tag(revision: str, *, allow_changes: bool) -> str:
    """Return the tag for a git revision.

    Raises:
        ConfigError: the checkout has uncommitted changes, so the revision does not describe the image.
    """
    if _git("status", "--porcelain", "--untracked-files=no") and not allow_changes:
        raise ConfigError("uncommitted changes: no revision describes this image; commit them, or give a TAG")
    return revision[:12]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"git {arguments[0]}: {done.stderr.strip()}; run this in the project's git checkout")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
