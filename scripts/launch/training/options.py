"""A training job as the command line asks for it → a spec, whose places are there."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from aws.clients import check_bucket, client, role_arn
from aws.errors import explained
from classifier.contract.channels import find_channels
from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError, DataError
from launch.cli import pairs, unique_name
from launch.local.opt_ml import NO_IMAGE
from launch.platform.clients import command
from launch.training.request import Network, TrainingSpec

_CHANNELS = ("train", "validation", "test", "pretrained")
LOCAL_ROLE = "arn:aws:iam::000000000000:role/local"


def spec_of(options: argparse.Namespace, values: Mapping[str, str], parsed: Hyperparameters) -> TrainingSpec:
    """The command line → a spec.

    Raises:
        ConfigError: something is missing or does not fit.
        DataError: a channel's folder does not exist.
        CloudError: there is no role, or S3 does not answer about the channels.
    """
    name = options.name or unique_name("image-classifier")
    output = _place(options.output, options.folder / "artifacts" if options.local else None, "--output")
    checkpoints = _place(options.checkpoints, None, "--checkpoints") if options.checkpoints else None
    return TrainingSpec(
        job_name=name,
        image=image_of(options),
        role=LOCAL_ROLE if options.local else role_arn(options.role, options.region),
        channels=channels_of(options),
        output=output,
        hyperparameters=values,
        instance_type=options.instance,
        num_instances=options.instances,
        volume_gb=options.volume,
        max_run_s=options.max_run,
        input_mode="FastFile" if options.fast_file else "File",
        spot=options.spot,
        max_wait_s=_max_wait(options),
        checkpoints=checkpoints or (f"{output}/{name}/checkpoints" if options.spot else None),
        debugger=options.debugger or getattr(parsed, "debug", False),
        save_interval=options.save_interval,
        profiler=options.profiler or getattr(parsed, "profile", False),
        network_isolation=options.network_isolation,
        network=Network(subnets=tuple(options.vpc_subnets), security_groups=tuple(options.security_groups)),
        kms_key=options.kms_key,
        environment=pairs(options.env, "--env KEY=VALUE"),
        tags=pairs(options.tag, "--tag KEY=VALUE"),
    )


def image_of(options: argparse.Namespace) -> str:
    """
    Raises:
        ConfigError: none is given, and this is not this machine, which does without.
    """
    image = options.image or (None if options.local else os.environ.get("IMAGE_URI"))
    if image:
        return image
    if options.local:
        return NO_IMAGE
    raise ConfigError("no image is given: --image URI, or set IMAGE_URI; scripts/build_and_push.sh pushes one")


def channels_of(options: argparse.Namespace) -> dict[str, str]:
    """
    Raises:
        ConfigError: there is none, or one is of the wrong kind.
        DataError: a folder does not exist.
        CloudError: S3 does not answer about --data.
    """
    channels: dict[str, str] = {}
    if options.data and options.data.startswith("s3://"):
        channels = _channels_in_s3(options.data, options.region)
    elif options.data:
        channels = {name: str(folder) for name, folder in find_channels(Path(options.data)).items()}
    channels.update(pairs(options.channel, "--channel NAME=PLACE"))
    if "train" not in channels:
        raise ConfigError("there is no channel train: --data PLACE, or --channel train=PLACE")
    return {name: _channel(name, place, local=options.local) for name, place in channels.items()}


def _channel(name: str, place: str, *, local: bool) -> str:
    if place.startswith("s3://"):
        return place
    if not local:
        raise ConfigError(
            f"channel {name!r}: {place} is on this machine; upload it first: "
            f"{command('upload_data', place, 's3://BUCKET/PREFIX')}"
        )
    if not Path(place).is_dir():
        raise DataError(f"channel {name!r}: there is no folder {place}")
    return Path(place).resolve().as_uri()


def _channels_in_s3(place: str, region: str | None) -> dict[str, str]:
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    start = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    with explained(place):
        s3 = client("s3", region=region)
        answer = s3.list_objects_v2(Bucket=bucket, Prefix=start, Delimiter="/")
    names = [item["Prefix"][len(start) :].rstrip("/") for item in answer.get("CommonPrefixes", ())]
    if not names:
        raise DataError(f"{place} holds no folders: upload_data puts train/, validation/ and test/ there")
    found = {name: f"s3://{bucket}/{start}{name}/" for name in _CHANNELS if name in names}
    return found if "train" in found else {"train": f"s3://{bucket}/{start}"}


def _place(text: str | None, default: Path | None, option: str) -> str:
    if text and text.startswith("s3://"):
        return text.rstrip("/")
    if default is None and not text:
        raise ConfigError(f"no {option} is given: {option} s3://BUCKET/PREFIX, a bucket of yours in the same region")
    if text and text.startswith("file://"):
        return text
    return Path(text or str(default)).resolve().as_uri()


def _max_wait(options: argparse.Namespace) -> int | None:
    if options.max_wait is None:
        return None
    if not options.spot:
        raise ConfigError("--max-wait goes with --spot")
    if options.max_wait < options.max_run:
        raise ConfigError(f"--max-wait {options.max_wait} is less than --max-run {options.max_run}: raise it")
    return options.max_wait


def check_places(spec: TrainingSpec, region: str | None) -> None:
    """
    Raises:
        CloudError: a bucket does not exist.
        ConfigError: a place is on this machine, and the image is not.
    """
    places = [*spec.channels.values(), spec.output, *([spec.checkpoints] if spec.checkpoints else [])]
    away = [place for place in places if place.startswith("s3://")]
    if spec.role != LOCAL_ROLE and len(away) < len(places):
        here = next(place for place in places if place not in away)
        raise ConfigError(f"{here} is on this machine, and the training is not: give s3://BUCKET/PREFIX")
    if not away:
        return
    s3 = client("s3", region=region)
    for bucket in dict.fromkeys(place.removeprefix("s3://").partition("/")[0] for place in away):
        check_bucket(s3, f"s3://{bucket}")
