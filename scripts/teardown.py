"""List what these commands left running on SageMaker (with --local, on this machine) and its cost; remove it.

Only resources with the tag project=image-classifier are listed: endpoints, their configs and models, running jobs,
and the warm pools of ended ones. With --name they are those of exactly this name, with the configs and models of its
endpoint, also those that earlier deployments have left; with --owner those of one person, by the tag owner that the
commands set to the name of who calls them. A config or a model that another endpoint or a running batch transform uses
is kept, whoever created those. Files in S3 and images in ECR are kept.

With --local --jobs, jobs that have ended are listed, too, with their sizes, and deleted with their models, checkpoints,
reports and logs, except for what --output has placed elsewhere.

Examples:
  .venv/bin/python scripts/teardown.py
  .venv/bin/python scripts/teardown.py --name dogs
  .venv/bin/python scripts/teardown.py --owner --region eu-west-1
  .venv/bin/python scripts/teardown.py --local --name 'dogs*' --yes
  .venv/bin/python scripts/teardown.py --local --jobs
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from aws.clients import caller_name
from aws.errors import translate_errors
from classifier.errors import ConfigError, UserError
from commands import interrupts
from launch.cli import add_common, check_needs, create_parser, platform_options, run_command
from launch.platform.clients import Platform
from launch.platform.inventory import Resource, find_resources, select
from launch.platform.references import find_references
from launch.platform.resources import ignore_missing
from launch.terminal import print_status

_RUNNING = "InProgress"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    return run_command("teardown", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("teardown.py", __doc__)
    parser.add_argument(
        "--name", metavar="NAME", help="only resources of exactly this name; a trailing * matches a prefix"
    )
    parser.add_argument(
        "--owner",
        nargs="?",
        const="",
        metavar="NAME",
        help="only resources with the tag owner=NAME; without NAME, your own",
    )
    parser.add_argument("--yes", action="store_true", help="remove without asking for confirmation")
    parser.add_argument("--jobs", action="store_true", help="with --local: also delete ended jobs, to free the disk")
    add_common(parser, dry_run="list them and remove nothing")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    check_needs(options, jobs="local")
    if options.local and options.owner is not None:
        raise ConfigError("--owner is for AWS: resources on this machine have no owner")
    place = platform_options(options)
    found = place.look_up(lambda: _find(options, place.connect()), None, "what is left is not known")
    if found is None:
        return 0
    platform, resources = found
    if not resources:
        return 0
    _print(resources)
    if options.dry_run:
        return 0
    if not options.yes and not _confirm(len(resources)):
        print_status("teardown: nothing was removed")
        return 1
    return _remove_all(platform, resources)


def _find(options: argparse.Namespace, platform: Platform) -> tuple[Platform, list[Resource]]:
    """Return what the command line selects; what is kept, and that nothing is left, is printed."""
    owner = caller_name(options.region) if options.owner == "" else options.owner
    with translate_errors("SageMaker"):
        references = find_references(platform.sagemaker)
    resources = find_resources(
        platform, local=options.local, region=options.region, owner=owner, ended_jobs=options.jobs
    )
    resources, kept = select(resources, references, options.name)
    for one, user in kept.items():
        print_status(f"teardown: kept {one}: {user} uses it")
    if not resources:
        name = "" if options.name is None else f" named {options.name}"
        print(f"nothing{name}{f' owned by {owner}' if owner else ''} is left")
    return platform, resources


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


def _remove_all(platform: Platform, resources: Sequence[Resource]) -> int:
    """Remove the resources, endpoints first; an error is printed, and the others are removed all the same."""
    endpoints = [one for one in resources if one.kind == "endpoint"]
    parts = [one for one in resources if one.kind in ("config", "model")]
    running = [one for one in resources if one.state == _RUNNING]
    ended = [one for one in resources if one not in (*endpoints, *parts, *running)]
    deleted = [one for one in endpoints if _remove(one)]
    # Not before all endpoints were tried: what costs money comes first.
    are_clean = [_try(one, one.clean_up) for one in deleted]
    stopped = [one for one in running if _remove(one)]
    are_removed = _remove_parts(platform, parts, [str(one) for one in (*deleted, *stopped)])
    # After the models, which may refer to their artifacts.
    are_deleted = [_remove(one) for one in ended]
    are_ended = [len(deleted) == len(endpoints), len(stopped) == len(running)]
    return int(not all([*are_ended, *are_clean, are_removed, *are_deleted]))


def _remove_parts(platform: Platform, parts: Sequence[Resource], deleted: Sequence[str]) -> bool:
    """Remove configs and models, except those that an endpoint or a job still references.

    Args:
        deleted: the endpoints and jobs whose end was accepted.
    """
    if not parts:
        return True
    try:
        with translate_errors("SageMaker"):
            references = find_references(platform.sagemaker, deleted=deleted)
    except UserError as error:
        print_status(f"teardown: {error}; configs and models were kept, as endpoints or jobs may use them")
        return False
    are_removed = True
    for one in parts:
        user = references.user_of(one.kind, one.name)
        if user:
            print_status(f"teardown: kept {one}: {user} uses it")
        are_removed = not user and _remove(one) and are_removed
    return are_removed


def _remove(resource: Resource) -> bool:
    if not _try(resource, resource.remove):
        return False
    done = "stopping" if resource.state == _RUNNING else "removed"
    print(f"{done:<10}{resource}", flush=True)
    return True


def _try(resource: Resource, action: Callable[[], object]) -> bool:
    """Return whether an action succeeded, or somebody else had removed the resource; an error is printed."""
    interrupts.check()
    try:
        with translate_errors(str(resource)), ignore_missing():
            action()
    except UserError as error:
        print_status(f"teardown: {error}")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
