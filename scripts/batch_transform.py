"""Label a whole folder of photos on SageMaker, with no endpoint; or with --local on this machine.

MODEL and PHOTOS are as deploy.py and train.py take them. Each photo's answer is a file of its name with .out behind it
under --output; a photo that is refused costs its own answer alone. Ctrl-C ends the watching alone.

Examples:
  .venv/bin/python scripts/batch_transform.py --local JOB prepared/test --output answers
  .venv/bin/python scripts/batch_transform.py JOB s3://my-bucket/photos --output s3://my-bucket/answers
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aws.clients import role_arn
from aws.errors import CloudError, explained
from classifier.errors import ConfigError, DataError
from launch.cli import add_common, add_resource, as_json, check_network, pairs, run_command, say, unique_name
from launch.endpoint.deployment import Deployment, artifact_of, name_for, version_of
from launch.endpoint.request import ModelSpec, model_request
from launch.platform.clients import Platform, aws_platform, command, is_finished, local_platform
from launch.platform.logs import TRANSFORM_JOBS, Follower, LogTail
from launch.platform.polling import wait
from launch.platform.prices import describe_hourly
from launch.training.options import LOCAL_ROLE, image_of
from launch.training.request import Network
from launch.transform.request import TransformSpec, transform_request


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    return run_command("batch_transform", lambda: _run(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="batch_transform.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="an artifact's address, or a training job's name")
    parser.add_argument("photos", metavar="PHOTOS", nargs="?", help="s3://…, or with --local a folder")
    parser.add_argument("--output", metavar="PLACE", help="where the answers go: s3://…, or with --local a folder")
    parser.add_argument("--name", help="the job's name (default: one with the time in it)")
    parser.add_argument("--accept", default="application/json", metavar="TYPE", help="the answers' (%(default)s)")
    parser.add_argument("--instance", default="ml.m5.xlarge", metavar="TYPE", help="default: %(default)s")
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--concurrent", type=int, default=4, metavar="N", help="photos at a time (%(default)s)")
    parser.add_argument("--max-payload", type=int, default=6, metavar="MB", help="largest photo (%(default)s)")
    parser.add_argument("--stop", metavar="JOB", help="start none, stop this one")
    add_common(parser)
    add_resource(parser)
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> int:
    check_network(options)
    if options.stop:
        return _stop(_platform(options), options.stop)
    if not (options.model and options.photos and options.output):
        raise ConfigError("MODEL, PHOTOS and --output are needed; --help has an example")
    data = artifact_of(options, lambda: _platform(options))
    model = _model_request(options, data)
    spec = TransformSpec(
        job_name=options.name or unique_name("image-classifier"),
        model_name=model["ModelName"],
        photos=_place(options.photos, options, must_exist=True),
        output=_place(options.output, options),
        accept=options.accept,
        instance_type=options.instance,
        num_instances=options.instances,
        max_concurrent=options.concurrent,
        max_payload_mb=options.max_payload,
        kms_key=options.kms_key,
        tags=pairs(options.tag, "--tag KEY=VALUE"),
    )
    request = transform_request(spec)
    if options.dry_run:
        print(as_json({"CreateModel": model, "CreateTransformJob": request}))
        return 0
    return _transform(_platform(options), model, request, options)


def _platform(options: argparse.Namespace) -> Platform:
    return local_platform(options.folder) if options.local else aws_platform(options.region)


def _model_request(options: argparse.Namespace, data: str) -> dict[str, Any]:
    spec = ModelSpec(
        name="",
        image=image_of(options),
        role=LOCAL_ROLE if options.local else role_arn(options.role, options.region),
        data=data,
        network_isolation=options.network_isolation,
        network=Network(subnets=tuple(options.vpc_subnets), security_groups=tuple(options.security_groups)),
        environment=pairs(options.env, "--env KEY=VALUE"),
        tags=pairs(options.tag, "--tag KEY=VALUE"),
    )
    request = model_request(spec)
    version = "" if options.dry_run else version_of(data, options.region)
    return {**request, "ModelName": name_for("image-classifier", request, version)}


def _place(text: str, options: argparse.Namespace, *, must_exist: bool = False) -> str:
    if text.startswith("s3://"):
        return text
    if not options.local:
        raise ConfigError(f"{text} is on this machine, and the job is not: give s3://BUCKET/PREFIX, or --local")
    path = Path(text).resolve()
    if must_exist and not path.is_dir():
        raise DataError(f"{text}: there is no such folder")
    return path.as_uri()


def _transform(
    platform: Platform, model: Mapping[str, Any], request: Mapping[str, Any], options: argparse.Namespace
) -> int:
    name = request["TransformJobName"]
    made = Deployment(platform, say)
    try:
        made.ensure_model(model)
        with explained(f"transform job {name}"):
            platform.sagemaker.create_transform_job(**request)
    except Exception:
        made.unmake()
        raise
    tail = LogTail(platform.logs, TRANSFORM_JOBS, f"{name}/")
    follower = Follower(tail, lambda line: print(line, flush=True), status_key="TransformJobStatus")
    try:
        # Within: who reads this line may press Ctrl-C at once, and is to hear what goes on.
        print(f"job         {name}", flush=True)
        record = wait(
            lambda: platform.sagemaker.describe_transform_job(TransformJobName=name),
            what=f"transform job {name}",
            done=lambda one: is_finished(one, "TransformJobStatus"),
            each=follower,
            interval_s=platform.interval_s,
        )
    except (KeyboardInterrupt, CloudError) as error:
        follower.close()
        cost = "" if options.local else f", {describe_hourly(options.instance, options.instances)}"
        say(f"batch_transform: no longer watching; {name} goes on{cost}")
        say(f"  stop it: {command('batch_transform', '--stop', name)}{platform.flags}")
        if isinstance(error, KeyboardInterrupt):
            return 130
        raise
    follower.close()
    return _conclude(record)


def _conclude(record: Mapping[str, Any]) -> int:
    if record["TransformJobStatus"] == "Failed":
        say(
            f"batch_transform: {record['TransformJobName']} failed: {record.get('FailureReason', 'no reason is given')}"
        )
        return 1
    print(f"answers     {record['TransformOutput']['S3OutputPath']}")
    return 0


def _stop(platform: Platform, name: str) -> int:
    with explained(f"transform job {name}"):
        platform.sagemaker.stop_transform_job(TransformJobName=name)
    say(f"{name} is asked to stop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
