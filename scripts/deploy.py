"""Deploy a model to an endpoint on SageMaker, or with --local on this machine; teardown.py removes it.

MODEL is what train.py prints: the artifact's address, or the job's name. With --multi-model it is the prefix (with
--local the folder) that contains many model.tar.gz. Running the same command again changes nothing; another model or
other settings update the endpoint in place. Without --serverless the endpoint costs money until it is removed; the
hourly price is printed. Once AWS has accepted an endpoint, an error or Ctrl-C removes nothing: what exists, what it
costs and the command that removes it are printed.

Examples:
  .venv/bin/python scripts/deploy.py --local image-classifier-20260101-120000-a1b2
  .venv/bin/python scripts/deploy.py s3://my-bucket/models/JOB/output/model.tar.gz --instance ml.g5.xlarge
  .venv/bin/python scripts/deploy.py JOB --max-instances 4 --update canary --alarm dogs-5xx
  .venv/bin/python scripts/deploy.py JOB --serverless
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from classifier.errors import UserError
from commands import interrupts
from launch.cli import (
    add_common,
    add_resource,
    check_needs,
    container_options,
    create_parser,
    platform_options,
    run_command,
)
from launch.endpoint.deployment import Deployment
from launch.endpoint.options import (
    ALL_AT_ONCE,
    DEFAULT_INSTANCE,
    NO_SCALING,
    EndpointOptions,
    ScalingOptions,
    check_endpoint,
    endpoint_requests,
)
from launch.endpoint.request import Capture, Serverless, Update
from launch.endpoint.scaling import EndpointScaling
from launch.local.processes import LOOPBACK
from launch.platform.autoscaling import Autoscaling
from launch.platform.clients import Platform
from launch.platform.models import artifact_version, resolve_artifact
from launch.platform.places import check_places, print_unchecked
from launch.platform.price_list import Use
from launch.platform.prices import PRICING_PAGE, describe_standing, find_rate, print_cost
from launch.platform.references import CreatedResources
from launch.terminal import as_json, command, print_status

SERVERLESS = Serverless()
T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parse(arguments)
    retry = command("deploy", *map(shlex.quote, sys.argv[1:] if arguments is None else arguments))
    return run_command("deploy", lambda: _run(options, retry))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = create_parser("deploy.py", __doc__)
    parser.add_argument("model", metavar="MODEL", help="an artifact's address, or the name of a training job")
    parser.add_argument("--name", default="image-classifier", help="the endpoint's name (default: %(default)s)")
    add_common(parser)
    add_resource(parser)
    parser.add_argument("--instance", metavar="TYPE", help=f"instance type (default: {DEFAULT_INSTANCE})")
    parser.add_argument(
        "--instances",
        type=int,
        metavar="N",
        help="number of instances; with --max-instances only of a new endpoint (default: as many as it has, or 1)",
    )
    parser.add_argument(
        "--take-over", action="store_true", help="update the endpoint even if another program has created it"
    )
    parser.add_argument(
        "--ami", metavar="NAME", help="host image with the NVIDIA driver (default: one that suits --instance)"
    )
    parser.add_argument(
        "--bind",
        metavar="ADDRESS",
        help="with --local: address on which the server listens, 0.0.0.0 for all (default: 127.0.0.1)",
    )
    parser.add_argument("--capture", metavar="S3_URI", help="record requests and answers there")
    parser.add_argument(
        "--capture-percent", type=int, metavar="N", help="with --capture: share to record, percent (default: 100)"
    )
    _add_kinds(parser)
    _add_scaling(parser)
    return parser.parse_args(arguments)


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_argument_group("kinds of endpoints")
    kind = kinds.add_mutually_exclusive_group()
    kind.add_argument("--serverless", action="store_true", help="billed per request; CPU only, slow first answer")
    kind.add_argument("--asynchronous", metavar="S3_URI", help="requests name photos in S3; the answers go there")
    kind.add_argument("--multi-model", action="store_true", help="many models, each loaded when first requested")
    kinds.add_argument("--memory", type=int, metavar="MB", help=f"with --serverless (default: {SERVERLESS.memory_mb})")
    kinds.add_argument(
        "--concurrency", type=int, metavar="N", help=f"with --serverless (default: {SERVERLESS.max_concurrency})"
    )
    kinds.add_argument(
        "--provisioned", type=int, metavar="N", help="with --serverless: keep containers for N requests, at their cost"
    )
    kinds.add_argument(
        "--max-concurrent-invocations",
        type=int,
        metavar="N",
        help="with --asynchronous: requests per instance at a time (default: chosen by AWS)",
    )
    kinds.add_argument("--sns", metavar="ARN", help="with --asynchronous: topic notified of each answer and failure")


def _add_scaling(parser: argparse.ArgumentParser) -> None:
    scaling = parser.add_argument_group("scaling and updates")
    scaling.add_argument(
        "--max-instances", type=int, metavar="N", help="scale with the load, up to N instances; without it, no more"
    )
    scaling.add_argument(
        "--min-instances",
        type=int,
        metavar="N",
        help="with --max-instances (default: 1); with --asynchronous also 0, and a request starts an instance",
    )
    scaling.add_argument(
        "--requests-each",
        type=float,
        metavar="N",
        help=f"with --max-instances: concurrent requests per instance to scale for (default: {NO_SCALING.target:g})",
    )
    scaling.add_argument(
        "--cooldown",
        type=int,
        metavar="SECONDS",
        help=f"with --max-instances: time between two removals of instances (default: {NO_SCALING.cooldown_s})",
    )
    scaling.add_argument(
        "--update",
        choices=("all-at-once", "canary", "rolling"),
        help=f"how traffic moves to the new fleet (default: {ALL_AT_ONCE.strategy})",
    )
    scaling.add_argument(
        "--update-percent",
        type=int,
        metavar="N",
        help=f"with --update: size of the canary or of a batch, percent of the fleet (default: {ALL_AT_ONCE.percent})",
    )
    scaling.add_argument(
        "--bake",
        type=int,
        metavar="SECONDS",
        help=f"with --alarm: monitoring period before the update completes (default: {ALL_AT_ONCE.bake_s})",
    )
    scaling.add_argument(
        "--alarm",
        action="append",
        default=[],
        metavar="NAME",
        help="CloudWatch alarm that rolls an update back; repeatable",
    )


def _endpoint_options(options: argparse.Namespace) -> EndpointOptions:
    check_needs(
        options,
        memory="serverless",
        concurrency="serverless",
        capture_percent="capture",
        requests_each="max_instances",
        bind="local",
        cooldown="max_instances",
        provisioned="serverless",
        max_concurrent_invocations="asynchronous",
        sns="asynchronous",
        update_percent="update",
        bake="alarm",
    )
    serverless = Serverless(
        memory_mb=_either(options.memory, SERVERLESS.memory_mb),
        max_concurrency=_either(options.concurrency, SERVERLESS.max_concurrency),
        provisioned=options.provisioned,
    )
    capture_percent = _either(options.capture_percent, 100)
    return EndpointOptions(
        platform=replace(platform_options(options), bind=options.bind or LOOPBACK),
        name=options.name,
        container=container_options(options),
        instance_type=options.instance,
        num_instances=options.instances,
        ami=options.ami,
        multi_model=options.multi_model,
        serverless=serverless if options.serverless else None,
        asynchronous=options.asynchronous or None,
        max_invocations=options.max_concurrent_invocations,
        topic=options.sns,
        capture=Capture(place=options.capture, percent=capture_percent) if options.capture else None,
        scaling=ScalingOptions(
            min_instances=options.min_instances,
            max_instances=options.max_instances,
            target=_either(options.requests_each, NO_SCALING.target),
            cooldown_s=_either(options.cooldown, NO_SCALING.cooldown_s),
        ),
        take_over=options.take_over,
        update=Update(
            strategy=options.update or ALL_AT_ONCE.strategy,
            percent=_either(options.update_percent, ALL_AT_ONCE.percent),
            bake_s=_either(options.bake, ALL_AT_ONCE.bake_s),
            alarms=tuple(options.alarm),
        ),
    )


def _either(given: T | None, default: T) -> T:
    return default if given is None else given


def _run(options: argparse.Namespace, retry: str) -> int:
    endpoint = _endpoint_options(options)
    check_endpoint(options.model, endpoint)
    endpoint = replace(endpoint, container=endpoint.container.with_owner(endpoint.platform))
    data = resolve_artifact(options.model, endpoint.platform)
    version = "" if endpoint.multi_model else artifact_version(data, endpoint.platform)
    requests = endpoint_requests(endpoint, data, version)
    places = [place for place in (options.asynchronous, options.capture) if place]
    if options.dry_run:
        print(as_json(requests))
        print_unchecked([*([data] if endpoint.multi_model else []), *places])
        _print_planned(endpoint, is_request=True)
        return 0
    check_places([data] if endpoint.multi_model else [], places, endpoint.platform)
    platform = endpoint.platform.connect()
    _print_planned(endpoint)
    return _deploy(platform, requests, endpoint, retry)


def _deploy(platform: Platform, requests: Mapping[str, Any], options: EndpointOptions, retry: str) -> int:
    deployment = Deployment(
        platform,
        requests,
        CreatedResources(platform.sagemaker),
        _scaling(requests, options),
        take_over=options.take_over,
        print_line=lambda line: print(line, flush=True),
    )
    try:
        deployment.run()
        print(f"endpoint    {options.name} is in service", flush=True)
        if deployment.scaling:
            deployment.scaling.apply()
        deployment.resize()
    except (UserError, KeyboardInterrupt) as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        is_without_effect = not (deployment.pending or deployment.is_in_service)
        stopped = "stopped; nothing was deployed" if is_without_effect else "stopped waiting"
        with interrupts.finishing():
            print_status(f"deploy: {stopped if is_interrupt else error}")
            _report(deployment, options, retry)
        return 130 if is_interrupt else 1
    except Exception:
        with interrupts.finishing():
            _report(deployment, options, retry)
        raise
    print(f"next        {command('predict', options.name, 'PHOTO')}{platform.flags}", flush=True)
    _print_cost(deployment, options)
    return 0


def _scaling(requests: Mapping[str, Any], options: EndpointOptions) -> EndpointScaling | None:
    if not options.platform.local:
        return EndpointScaling(Autoscaling(options.name, options.platform.region), options.name, requests)
    if "PutScalingPolicy" in requests:
        print_status("deploy: --max-instances is ignored with --local, which runs one server")
    return None


def _report(deployment: Deployment, options: EndpointOptions, retry: str) -> None:
    """Undo what can be undone, and print what exists after an error or Ctrl-C, its cost and how to go on."""
    name = options.name
    left = deployment.undo()
    if deployment.scaling:
        deployment.scaling.print_lost()
    if deployment.is_in_service:
        print_status(f"deploy: endpoint {name} is in service; finish its settings with {retry}")
    elif deployment.pending:
        accepted = "was accepted" if deployment.is_accepted else "may have been accepted"
        status = f", and it was {deployment.latest['EndpointStatus']} when last seen" if deployment.latest else ""
        print_status(f"deploy: the {deployment.pending} of endpoint {name} {accepted}{status}; follow it with {retry}")
    else:
        for one in left:
            remove = command("teardown", "--name", one.rpartition(" ")[2])
            print_status(f"deploy: {one} is left, at no cost; remove it with {remove}{deployment.platform.flags}")
        return
    _print_cost(deployment, options)


def _print_cost(deployment: Deployment, options: EndpointOptions) -> None:
    if options.platform.local:
        cost = "it runs on this machine"
    elif options.serverless:
        cost = f"it is billed {_describe_serverless(options.serverless)}"
    else:
        idle = "" if options.scaling.min_instances == 0 else ", even without requests,"
        cost = f"it costs{idle} {_standing(options, _num_instances(deployment, options))}"
    print_status(f"{cost}; remove it with {command('teardown', '--name', options.name)}{deployment.platform.flags}")


def _print_planned(options: EndpointOptions, *, is_request: bool = False) -> None:
    """Print what the endpoint costs; the number of instances of an existing one may be another."""
    if options.platform.local:
        return
    if options.serverless:
        cost = _describe_serverless(options.serverless)
    else:
        cost = f"{_standing(options, _planned_instances(options))}, until it is removed"
    print_cost(cost, is_request=is_request)


def _describe_serverless(serverless: Serverless) -> str:
    idle = "nothing while there are none"
    if serverless.provisioned:
        idle = f"and day and night for {serverless.provisioned} provisioned, hourly price unknown"
    return f"by the request and its duration, {idle}, see {PRICING_PAGE}"


def _standing(options: EndpointOptions, num_instances: int) -> str:
    use = Use.ASYNCHRONOUS if options.asynchronous else Use.HOSTING
    rate = find_rate(use, options.instance_type or DEFAULT_INSTANCE, num_instances, options.platform.region)
    scaling = options.scaling
    return describe_standing(rate, min_instances=scaling.min_instances, max_instances=scaling.max_instances)


def _planned_instances(options: EndpointOptions) -> int:
    return 1 if options.num_instances is None else options.num_instances


def _num_instances(deployment: Deployment, options: EndpointOptions) -> int:
    """Return the number that the endpoint runs, which an update may have retained."""
    variants = (deployment.latest or {}).get("ProductionVariants") or [{}]
    return variants[0].get("DesiredInstanceCount", _planned_instances(options))


if __name__ == "__main__":
    sys.exit(main())
