"""List what these commands left running on SageMaker (with --local, on this machine) and its cost; remove it.

Only resources with the tag project=image-classifier are listed: endpoints, their configs and models, running jobs.
Files in S3 and images in ECR are kept.

Examples:
  .venv/bin/python scripts/teardown.py
  .venv/bin/python scripts/teardown.py --local --yes
"""

import argparse
import sys
from collections.abc import Sequence

from aws.errors import translate_errors
from classifier.errors import UserError
from launch.cli import add_common, create_parser, platform_options, run_command
from launch.platform.inventory import Resource, find_resources
from launch.terminal import print_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("teardown", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("teardown.py", __doc__)
    parser.add_argument("--name", metavar="TEXT", help="only resources with TEXT in their name")
    parser.add_argument("--yes", action="store_true", help="remove without asking for confirmation")
    add_common(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    platform = platform_options(options).connect()
    resources = find_resources(platform, local=options.local, region=options.region)
    resources = [resource for resource in resources if (options.name or "") in resource.name]
    if not resources:
        print("nothing is left")
        return 0
    _print(resources)
    if options.dry_run:
        return 0
    if not options.yes and not _confirm(len(resources)):
        print_status("teardown: nothing was removed")
        return 1
    return _remove(resources)


def _print(resources: Sequence[Resource]) -> None:
    width = max(len(resource.name) for resource in resources)
    for resource in resources:
        cost = resource.cost or "free"
        print(f"{resource.kind:<10}{resource.name:<{width}}  {resource.state:<11}{cost}", flush=True)


def _confirm(num: int) -> bool:
    if not sys.stdin.isatty():
        print_status("teardown: standard input is no terminal to ask on; --yes removes without asking")
        return False
    return input(f"remove these {num}? [y/N] ").strip().lower() in ("y", "yes")


def _remove(resources: Sequence[Resource]) -> int:
    """Remove the resources; an error is printed, and the others are removed all the same."""
    failed = False
    for resource in resources:
        try:
            with translate_errors(f"{resource.kind} {resource.name}"):
                resource.remove()
        except UserError as error:
            failed = True
            print_status(f"teardown: {error}")
            continue
        done = "stopping" if resource.kind in ("tuning", "training", "transform") else "removed"
        print(f"{done:<10}{resource.kind} {resource.name}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
