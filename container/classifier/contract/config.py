"""The platform's JSON files in ``input/config``, validated once into frozen values."""

import ast
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from classifier.contract.channels import CHANNELS, photo_channel
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class _PlatformModel(BaseModel):
    """Base of the files in PascalCase. Unknown fields are ignored, since the platform adds fields over time."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_pascal, populate_by_name=True)


class Channel(_PlatformModel):
    """One entry of ``inputdataconfig.json``. Local mode may write an empty one."""

    training_input_mode: Literal["File", "FastFile", "Pipe"] = "File"
    s3_distribution_type: str = "FullyReplicated"


class Cluster(BaseModel):
    """``resourceconfig.json``: the hosts of the job."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    current_host: str = "algo-1"
    hosts: Annotated[tuple[str, ...], Field(min_length=1)] = ("algo-1",)
    current_instance_type: str | None = None
    network_interface_name: str | None = None

    @property
    def rank(self) -> int:
        """Index of this host in the sorted list of hosts."""
        return sorted(self.hosts).index(self.current_host)


_ONE_HOST = Cluster()


class CheckpointConfig(_PlatformModel):
    """``checkpointconfig.json``, which exists only if the job enables checkpoints."""

    local_path: Path = Path("/opt/ml/checkpoints")


class Collection(_PlatformModel):
    """A named group of tensors that the debugger saves, with its save configuration."""

    collection_name: str
    collection_parameters: dict[str, str] = Field(default_factory=dict)


class HookConfig(_PlatformModel):
    """``debughookconfig.json``, which exists only if the job enables the debugger."""

    local_path: Path = Path("/opt/ml/output/tensors")
    hook_parameters: dict[str, str] = Field(default_factory=dict)
    collection_configurations: tuple[Collection, ...] = ()


class StepRange(BaseModel):
    """Consecutive steps to profile in detail, counted from 0."""

    model_config = ConfigDict(frozen=True)

    start_step: Annotated[int, Field(ge=0)] = 5
    num_steps: Annotated[int, Field(ge=1)] = 3


def _parse_step_range(value: object) -> object:
    """Parse ``{"StartStep": 5, "NumSteps": 3}``, which the SDK writes as a string: as JSON or as a Python dict's repr.

    Returns None if it cannot be parsed, because profiling never fails a job. At least one step is profiled.
    """
    if isinstance(value, str):
        value = _parse_text(value)
    if not isinstance(value, dict):
        return value if isinstance(value, StepRange) else None
    given = {str(key).lower(): item for key, item in value.items() if isinstance(item, int) and item >= 0}
    steps = {"start_step": given.get("startstep", 5), "num_steps": given.get("numsteps", 3) or 1}
    return steps if given else None


def _parse_text(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return None


OptionalStepRange = Annotated[StepRange | None, BeforeValidator(_parse_step_range)]


class ProfilingParameters(_PlatformModel):
    """``ProfilingParameters`` of ``profilerconfig.json``."""

    profiler_enabled: bool = True
    local_path: Path = Path("/opt/ml/output/profiler")
    detailed_profiling_config: OptionalStepRange = None
    dataloader_profiling_config: OptionalStepRange = None
    python_profiling_config: OptionalStepRange = None

    @property
    def operators(self) -> StepRange:
        """Steps whose operators are profiled: the first of the three step ranges that is set."""
        given = (self.detailed_profiling_config, self.python_profiling_config, self.dataloader_profiling_config)
        return next((steps for steps in given if steps is not None), StepRange())


class ProfilerConfig(_PlatformModel):
    """``profilerconfig.json``, which exists only if the job enables the profiler."""

    profiling_parameters: ProfilingParameters = Field(default_factory=ProfilingParameters)
    profiling_interval_in_milliseconds: Annotated[int, Field(ge=100, le=60_000)] = 500
    disable_profiler: bool = False

    @property
    def is_enabled(self) -> bool:
        """Whether to profile: as in smdebug, the file's presence enables the profiler unless a field disables it."""
        return self.profiling_parameters.profiler_enabled and not self.disable_profiler


@dataclass(frozen=True)
class TrainingConfig:
    """Configuration of a training job: everything the platform passes in files and environment variables."""

    hyperparameters: Hyperparameters
    channels: Mapping[str, Channel]
    ignored_channels: tuple[str, ...] = ()
    cluster: Cluster = _ONE_HOST
    checkpoint: CheckpointConfig | None = None
    hook: HookConfig | None = None
    profiler: ProfilerConfig | None = None
    job_name: str | None = None


def read_training_config(paths: Paths, environment: Mapping[str, str] = os.environ) -> TrainingConfig:
    """Read and validate the files of ``input/config``.

    Raises:
        ConfigError: a file is not JSON, a value has the wrong type, or a channel is missing, misspelt, in Pipe mode or
            divided among several hosts.
    """
    channels = _read_channels(paths.config / "inputdataconfig.json")
    cluster = _read_cluster(paths.config / "resourceconfig.json")
    _check_distribution(channels, cluster)
    return TrainingConfig(
        hyperparameters=Hyperparameters.parse(_read_json(paths.config / "hyperparameters.json") or {}),
        channels={name: channel for name, channel in channels.items() if name in CHANNELS},
        ignored_channels=tuple(name for name in channels if name not in CHANNELS),
        cluster=cluster,
        checkpoint=_read_optional(paths.config / "checkpointconfig.json", CheckpointConfig),
        hook=_read_optional(paths.config / "debughookconfig.json", HookConfig),
        profiler=_read_optional(paths.config / "profilerconfig.json", ProfilerConfig),
        job_name=environment.get("TRAINING_JOB_NAME"),
    )


def _read_channels(path: Path) -> dict[str, Channel]:
    content = _read_json(path)
    if content is None:
        raise ConfigError(f"{path} is missing: it lists the job's channels, of which 'train' is required")
    channels = {name: _validate(Channel, value, f"{path}: channel {name!r}") for name, value in content.items()}
    for name, channel in channels.items():
        _check_channel(name, channel)
    if "train" not in channels:
        given = f"only {', '.join(map(repr, channels))}" if channels else "no channels"
        raise ConfigError(f"there is no channel 'train': {path} lists {given}; add one with a folder per class")
    return channels


def _check_channel(name: str, channel: Channel) -> None:
    if name not in CHANNELS:
        synonym = photo_channel(name)
        # Not "model": it resembles "code", a channel that SDKs add.
        similar = did_you_mean(name, [one for one in CHANNELS if one != "model"])
        hint = f" (did you mean {synonym!r}?)" if synonym else similar
        if hint:
            raise ConfigError(f"unknown channel {name!r}{hint}; choose from {', '.join(CHANNELS)}")
    elif channel.training_input_mode == "Pipe":
        raise ConfigError(
            f"channel {name!r} uses Pipe mode, and a folder of photos can't be read from a pipe: "
            "set TrainingInputMode to File or FastFile"
        )


def _check_distribution(channels: Mapping[str, Channel], cluster: Cluster) -> None:
    """Check that all hosts have all files, of which each step takes some at random."""
    for name, channel in channels.items():
        if len(cluster.hosts) > 1 and name in CHANNELS and channel.s3_distribution_type == "ShardedByS3Key":
            raise ConfigError(
                f"channel {name!r} is divided among {len(cluster.hosts)} hosts (ShardedByS3Key), and a class may lie "
                "on one of them alone: set S3DataDistributionType to FullyReplicated"
            )


def _read_cluster(path: Path) -> Cluster:
    cluster = _read_optional(path, Cluster) or Cluster()
    if cluster.current_host not in cluster.hosts:
        raise ConfigError(f"{path}: current_host {cluster.current_host!r} is not one of hosts {list(cluster.hosts)}")
    return cluster


def _read_optional(path: Path, kind: type[Model]) -> Model | None:
    content = _read_json(path)
    return None if content is None else _validate(kind, content, str(path))


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file; None if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should hold a JSON object, not {type(content).__name__}")
    return content


def _validate(kind: type[Model], content: object, where: str) -> Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join([where, ".".join(map(str, first["loc"]))] if first["loc"] else [where])
        raise ConfigError(f"{place}: {first['msg']}, not {first['input']!r}") from None
