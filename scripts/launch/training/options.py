"""Training options of the command line, resolved into a :class:`TrainingSpec` whose places exist."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aws.clients import client
from aws.errors import translate_errors
from aws.request_check import check
from classifier.contract.architectures import check_name
from classifier.contract.channels import find_channels, is_junk_file, is_shard, photo_channel, select_channels
from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError, DataError
from launch.platform.clients import PlatformOptions
from launch.platform.places import check_places, print_unchecked
from launch.platform.price_list import Use
from launch.platform.prices import describe_limit, find_rate, hours
from launch.platform.resources import NO_OPTIONS, ContainerOptions
from launch.terminal import command, unique_name
from launch.training.request import (
    DEFAULT_RESOURCES,
    NO_MONITORING,
    Monitoring,
    Resources,
    TrainingSpec,
    training_request,
)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """A training job as requested on the command line.

    Attributes:
        name: the job's name; default: one with the time in it.
        data: an ``s3://`` prefix or a folder that contains channels or class folders.
        channels: maps names of further channels to ``s3://`` prefixes or folders.
        output: where the artifacts go; default for local jobs: a folder beside the jobs.
        checkpoints: where to resume from; with spot capacity there is a default below ``output``.
        fast_file: stream the channels from S3.
        remote_debug: let Systems Manager open a shell in the running container.
    """

    platform: PlatformOptions
    container: ContainerOptions = NO_OPTIONS
    name: str | None = None
    data: str | None = None
    channels: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None
    checkpoints: str | None = None
    fast_file: bool = False
    remote_debug: bool = False
    resources: Resources = DEFAULT_RESOURCES
    monitoring: Monitoring = NO_MONITORING


def training_spec(options: TrainingOptions, hyperparameters: Mapping[str, str]) -> TrainingSpec:
    """Resolve the options: find channels, role and image, and apply defaults.

    Args:
        hyperparameters: names and values as they are sent.

    Raises:
        ConfigError: an option is missing or invalid.
        DataError: a channel's folder does not exist, or the layout of the data is ambiguous.
        CloudError: no role is given, or S3 can't list the channels.
    """
    parsed = Hyperparameters.parse(hyperparameters)
    check_name(parsed.model)
    platform, container, monitoring = options.platform, options.container, options.monitoring
    name = options.name or unique_name("image-classifier")
    output = _output_uri(options.output, platform)
    checkpoints = _output_uri(options.checkpoints, platform) if options.checkpoints else None
    _check_max_wait(options.resources)
    _check_save_interval(monitoring)
    return TrainingSpec(
        job_name=name,
        image=container.resolve_image(local=platform.local),
        role=container.resolve_role(platform),
        channels=resolve_channels(options.data, options.channels, platform),
        output=output,
        hyperparameters=_with_monitoring(hyperparameters, monitoring),
        input_mode="FastFile" if options.fast_file else "File",
        checkpoints=checkpoints or (f"{output}/{name}/checkpoints" if options.resources.spot else None),
        remote_debug=options.remote_debug,
        resources=options.resources,
        monitoring=replace(monitoring, profiler=monitoring.profiler or parsed.profile),
        security=container.security,
        environment=container.environment,
        tags=container.tags,
    )


def check_training(options: TrainingOptions, hyperparameters: Mapping[str, str]) -> None:
    """Check the request that the options give, before anything is sent.

    Raises:
        UserError: as :func:`training_spec`, except for what only AWS knows; or AWS would refuse the request.
    """
    spec = training_spec(replace(options, platform=options.platform.assuming()), hyperparameters)
    check({"CreateTrainingJob": training_request(spec)}, local=options.platform.local)


def resolve_channels(data: str | None, channels: Mapping[str, str], platform: PlatformOptions) -> dict[str, str]:
    """Map channel names to ``s3://`` prefixes or ``file://`` folders.

    Args:
        data: an ``s3://`` prefix or a folder that contains channels or class folders.
        channels: further channels, which take precedence.

    Raises:
        ConfigError: there is no channel ``train``, or a local folder is given for a job on AWS.
        DataError: a folder does not exist, or the layout of ``data`` is ambiguous.
        CloudError: S3 can't list the channels in ``data``.
    """
    found: dict[str, str] = {}
    if data and data.startswith("s3://"):
        place = data.rstrip("/")
        # As upload_data writes them.
        assumed = {name: f"{place}/{name}/" for name in ("train", "validation", "test")}
        consequence = f"the channels {', '.join(assumed)} are assumed"
        found = platform.look_up(lambda: _channels_in_s3(place, platform.region), assumed, consequence)
    elif data:
        found = {name: str(folder) for name, folder in find_channels(Path(data)).items()}
    found.update(channels)
    if "train" not in found:
        raise ConfigError("there is no channel train: --data PLACE, or --channel train=PLACE")
    return {name: _channel_uri(name, place, local=platform.local) for name, place in found.items()}


def check_training_places(spec: TrainingSpec, platform: PlatformOptions) -> None:
    """Check the places in S3 of a training job, before it is created.

    Raises:
        CloudError: as :func:`launch.platform.places.check_places`.
    """
    check_places(spec.channels.values(), _written(spec), platform)


def print_unchecked_places(spec: TrainingSpec) -> None:
    """Print which places of a training job a dry run has not checked."""
    print_unchecked([*spec.channels.values(), *_written(spec)])


def _written(spec: TrainingSpec) -> list[str]:
    return [spec.output, *([spec.checkpoints] if spec.checkpoints else [])]


def describe_cost(spec: TrainingSpec, platform: PlatformOptions) -> str:
    """Return what a training job costs on AWS that runs to its time limit."""
    resources = spec.resources
    rate = find_rate(Use.TRAINING, resources.instance_type, resources.num_instances, platform.region)
    keep_s = resources.keep_alive_s or 0
    limit = describe_limit(rate, resources.max_run_s + keep_s, spot=resources.spot)
    return f"{limit}; {hours(keep_s)} of warm pool included" if keep_s else limit


def _channel_uri(name: str, place: str, *, local: bool) -> str:
    if place.startswith("s3://"):
        return place
    if not local:
        raise ConfigError(
            f"channel {name!r}: {place} is on this machine; upload it first: "
            f"{command('upload_data', place, 's3://BUCKET/PREFIX')}"
        )
    if not Path(place).is_dir():
        raise DataError(f"channel {name!r}: folder {place} does not exist")
    return Path(place).resolve().as_uri()


def _channels_in_s3(place: str, region: str | None) -> dict[str, str]:
    """Apply the layout rules of local data folders to the prefixes below an ``s3://`` prefix."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    start = f"{prefix}/" if prefix else ""
    with translate_errors(place):
        s3 = client("s3", region=region)
        children = list(_list_in_s3(s3, bucket, start))
        holds_folders = {
            name: photo_channel(name) is not None
            and any(map(_holds_classes, _list_in_s3(s3, bucket, f"{start}{name}/")))
            for name in (child.rstrip("/") for child in children if child.endswith("/"))
        }
    if not holds_folders and not any(map(is_shard, children)):
        raise DataError(f"{place} contains no folders; upload_data creates train/, validation/ and test/ there")
    names = select_channels(holds_folders, place)
    return {channel: f"s3://{bucket}/{start}{name}/" for channel, name in names.items()} or {
        "train": f"s3://{bucket}/{start}"
    }


def _holds_classes(child: str) -> bool:
    """Whether a name below a channel is a class folder or a tar shard."""
    return is_shard(child) or (child.endswith("/") and not is_junk_file(child))


def _list_in_s3(s3: Any, bucket: str, start: str) -> Iterator[str]:
    """Yield the names below a prefix; those of folders end in a slash."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/"):
        for item in page.get("CommonPrefixes", ()):
            yield item["Prefix"][len(start) :]
        for item in page.get("Contents", ()):
            yield item["Key"][len(start) :]


def _output_uri(text: str | None, platform: PlatformOptions) -> str:
    if not platform.local:
        if not text:
            raise ConfigError("no --output is given: --output s3://BUCKET/PREFIX, a bucket of yours in the same region")
        # As it was given, for a message about it; RequestError unless it is in S3.
        return text.rstrip("/")
    if text and text.startswith(("s3://", "file://")):
        return text.rstrip("/")
    return Path(text or platform.folder / "artifacts").resolve().as_uri()


def _with_monitoring(hyperparameters: Mapping[str, str], monitoring: Monitoring) -> dict[str, str]:
    """Add the hyperparameters that turn on what the options ask for."""
    asked = {"debug": monitoring.debugger, "profile": monitoring.profiler}
    return {**hyperparameters, **{name: "true" for name, is_on in asked.items() if is_on}}


def _check_save_interval(monitoring: Monitoring) -> None:
    if monitoring.save_interval is not None and monitoring.save_interval < 1:
        raise ConfigError(f"--save-interval {monitoring.save_interval}: at least 1 step")


def _check_max_wait(resources: Resources) -> None:
    if resources.max_wait_s is None:
        return
    if not resources.spot:
        raise ConfigError("--max-wait needs --spot")
    if resources.max_wait_s < resources.max_run_s:
        raise ConfigError(f"--max-wait {resources.max_wait_s} is less than --max-run {resources.max_run_s}: raise it")
