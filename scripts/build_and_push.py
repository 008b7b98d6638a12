"""Build the image and push it to ECR, under the revision that it was built from; prints the image's digest URI.

The repository is made if there is none: scanned on push, its tags immutable. What is there already under the tag is not
pushed again. Standard output gets the URI alone, so that IMAGE_URI=$(scripts/build_and_push.sh) works.

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
from classifier.errors import ConfigError
from launch.cli import as_json, run_command, say
from launch.platform.ecr import ensure_repository, find_digest, log_in, repository_request, run_docker

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return run_command("build_and_push", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build_and_push.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tag", nargs="?", metavar="TAG", help="default: the git revision")
    parser.add_argument("--repository", default="image-classifier", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE", help="for docker build")
    parser.add_argument("--local", action="store_true", help="build it, and push nothing")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument("--region", metavar="NAME", help="default: as the AWS CLI's")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    revision = _git("rev-parse", "HEAD")
    tag = options.tag or _revision_tag(revision, allow_changes=options.local or options.dry_run)
    name = f"{options.repository}:{tag}"
    build = _build_command(options, name, revision)
    if options.dry_run:
        print(as_json({"docker": build, "CreateRepository": repository_request(options.repository)}))
        return 0
    if options.local:
        run_docker([*build, "--tag", options.repository])
        print(options.repository)
        return 0
    ecr = client("ecr", region=options.region)
    address = ensure_repository(ecr, options.repository)
    digest = find_digest(ecr, options.repository, tag)
    if digest:
        say(f"build_and_push: {name} is there already; its tags never change, so it is not pushed again")
    else:
        run_docker(build)
        log_in(ecr)
        run_docker(["docker", "tag", name, f"{address}:{tag}"])
        run_docker(["docker", "push", f"{address}:{tag}"])
        digest = find_digest(ecr, options.repository, tag)
    print(f"{address}@{digest}" if digest else f"{address}:{tag}")
    return 0


def _build_command(options: argparse.Namespace, name: str, revision: str) -> list[str]:
    arguments = [f"REVISION={revision}", *options.build_arg]
    extra = [part for argument in arguments for part in ("--build-arg", argument)]
    return ["docker", "build", "--tag", name, "--file", str(ROOT / "docker" / "Dockerfile"), *extra, str(ROOT)]


def _revision_tag(revision: str, *, allow_changes: bool) -> str:
    """
    Raises:
        ConfigError: what lies here is not what the revision says.
    """
    if _git("status", "--porcelain", "--untracked-files=no") and not allow_changes:
        raise ConfigError("changes are not committed, so no revision names this image: commit, or name a TAG")
    return revision[:12]


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"git {arguments[0]}: {done.stderr.strip()}; run this in the project's git checkout")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
