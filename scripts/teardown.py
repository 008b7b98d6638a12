"""List what these commands left on SageMaker (or with --local on this machine) and what it costs; remove it on a yes.

Only what carries the tag project=image-classifier is listed: endpoints, their configs and models, running jobs. What
lies in S3 and ECR stays.

Examples:
  .venv/bin/python scripts/teardown.py
  .venv/bin/python scripts/teardown.py --local --yes
"""

import argparse
import sys
from collections.abc import Sequence

from aws.errors import explained
from classifier.errors import UserError
from launch.cli import add_common, run_command, say
from launch.platform.clients import aws_platform, local_platform
from launch.platform.inventory import Found, find


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return run_command("teardown", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="teardown.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", metavar="TEXT", help="only what has TEXT in its name")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    add_common(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    platform = local_platform(options.folder) if options.local else aws_platform(options.region)
    found = find(platform, local=options.local, region=options.region)
    found = [one for one in found if (options.name or "") in one.name]
    if not found:
        print("nothing is left")
        return 0
    _list(found)
    if options.dry_run:
        return 0
    if not options.yes and not _agreed(len(found)):
        say("teardown: nothing was removed")
        return 1
    return _remove(found)


def _list(found: Sequence[Found]) -> None:
    width = max(len(one.name) for one in found)
    for one in found:
        print(f"{one.kind:<10}{one.name:<{width}}  {one.state:<11}{one.cost or 'free'}", flush=True)


def _agreed(num: int) -> bool:
    if not sys.stdin.isatty():
        say("teardown: there is no terminal to ask on: --yes removes without asking")
        return False
    return input(f"remove these {num}? [y/N] ").strip().lower() in ("y", "yes")


def _remove(found: Sequence[Found]) -> int:
    """Remove each; one that can't be does not keep the others."""
    failed = False
    for one in found:
        try:
            with explained(f"{one.kind} {one.name}"):
                one.remove()
        except UserError as error:
            failed = True
            say(f"teardown: {error}")
            continue
        done = "stopping" if one.kind in ("tuning", "training", "transform") else "removed"
        print(f"{done:<10}{one.kind} {one.name}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
