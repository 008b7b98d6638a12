"""The JSON files of ``input/config`` → frozen values, read once, at the door."""

import ast
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal

from classifier.contract.channels import CHANNELS
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import ConfigError, did_you_mean

Value = TypeVar("Value", bound=BaseModel)

_OTHER_NAMES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}


class _PlatformValue(BaseModel):
    """The platform writes PascalCase and adds fields as it grows: unknown ones are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_pascal, populate_by_name=True)


class Channel(_PlatformValue):
    """One entry of ``inputdataconfig.json``. Local mode leaves out all but the input mode."""

    training_input_mode: Literal["File", "FastFile", "Pipe"] = "File"
    content_type: str | None = None
    s3_distribution_type: str = Field("FullyReplicated", alias="S3DistributionType")
    record_wrapper_type: str = "None"


class Cluster(BaseModel):
    """``resourceconfig.json``: the hosts of this job."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    current_host: str = "algo-1"
    hosts: Annotated[tuple[str, ...], Field(min_length=1)] = ("algo-1",)
    network_interface_name: str | None = None
    current_instance_type: str | None = None

    @property
    def rank(self) -> int:
        """This host's place in the sorted list of hosts."""
        return sorted(self.hosts).index(self.current_host)


_ONE_HOST = Cluster()


class CheckpointConfig(_PlatformValue):
    """``checkpointconfig.json``; there only when checkpointing was asked for."""

    local_path: Path = Path("/opt/ml/checkpoints")


class Collection(_PlatformValue):
    """Tensors that the debugger is to save together."""

    collection_name: str
    collection_parameters: dict[str, str] = Field(default_factory=dict)


class HookConfig(_PlatformValue):
    """``debughookconfig.json``; there only when the debugger was asked for."""

    local_path: Path = Path("/opt/ml/output/tensors")
    s3_output_path: str | None = Field(None, alias="S3OutputPath")
    hook_parameters: dict[str, str] = Field(default_factory=dict)
    collection_configurations: tuple[Collection, ...] = ()


class StepRange(BaseModel):
    """Steps that are looked at more closely; they count from 0."""

    model_config = ConfigDict(frozen=True)

    start_step: Annotated[int, Field(ge=0)] = 5
    num_steps: Annotated[int, Field(ge=1)] = 3


def _parse_step_range(value: object) -> object:
    """``{"StartStep": 5, "NumSteps": 3}``, which the SDK writes as JSON in a string, or as Python's text of it.

    What can't be read asks for nothing: the profiler never fails a job.
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


class ProfilingParameters(_PlatformValue):
    """``operators`` are looked at in the steps that one of the three configs names."""

    profiler_enabled: bool = True
    local_path: Path = Path("/opt/ml/output/profiler")
    detailed_profiling_config: OptionalStepRange = None
    dataloader_profiling_config: OptionalStepRange = None
    python_profiling_config: OptionalStepRange = None

    @property
    def operators(self) -> StepRange:
        given = (self.detailed_profiling_config, self.python_profiling_config, self.dataloader_profiling_config)
        return next((steps for steps in given if steps is not None), StepRange())


class ProfilerConfig(_PlatformValue):
    """``profilerconfig.json``; there only when the profiler was asked for."""

    profiling_parameters: ProfilingParameters = Field(default_factory=ProfilingParameters)
    profiling_interval_in_milliseconds: Annotated[int, Field(ge=100, le=60_000)] = 500
    disable_profiler: bool = False

    @property
    def is_enabled(self) -> bool:
        """The file asks for the profiler by being there, as in smdebug, unless it says otherwise."""
        return self.profiling_parameters.profiler_enabled and not self.disable_profiler


@dataclass(frozen=True)
class TrainingConfig:
    """All that the platform says to a training job."""

    hyperparameters: Hyperparameters
    channels: Mapping[str, Channel]
    ignored_channels: tuple[str, ...] = ()
    cluster: Cluster = _ONE_HOST
    checkpoint: CheckpointConfig | None = None
    hook: HookConfig | None = None
    profiler: ProfilerConfig | None = None
    job_name: str | None = None


def read_training_config(paths: Paths, environment: Mapping[str, str] = os.environ) -> TrainingConfig:
    """Every file of ``input/config`` that the platform promises.

    Raises:
        ConfigError: a file is not JSON, a value has the wrong type, or a channel can't be used.
    """
    channels = _read_channels(paths.config / "inputdataconfig.json")
    return TrainingConfig(
        hyperparameters=Hyperparameters.parse(_read_json(paths.config / "hyperparameters.json") or {}),
        channels={name: channel for name, channel in channels.items() if name in CHANNELS},
        ignored_channels=tuple(name for name in channels if name not in CHANNELS),
        cluster=_read_cluster(paths.config / "resourceconfig.json"),
        checkpoint=_read_optional(paths.config / "checkpointconfig.json", CheckpointConfig),
        hook=_read_optional(paths.config / "debughookconfig.json", HookConfig),
        profiler=_read_optional(paths.config / "profilerconfig.json", ProfilerConfig),
        job_name=environment.get("TRAINING_JOB_NAME"),
    )


def _read_channels(path: Path) -> dict[str, Channel]:
    content = _read_json(path) or {}
    channels = {name: _validate(Channel, value, f"{path}: channel {name!r}") for name, value in content.items()}
    for name, channel in channels.items():
        _check_channel(name, channel)
    if "train" not in channels:
        given = f"only {', '.join(map(repr, channels))}" if channels else "none at all"
        raise ConfigError(f"there is no channel 'train': {path} names {given}; add one that holds a folder a class")
    return channels


def _check_channel(name: str, channel: Channel) -> None:
    if name not in CHANNELS:
        hint = f" (did you mean {_OTHER_NAMES[name]!r}?)" if name in _OTHER_NAMES else did_you_mean(name, CHANNELS)
        if hint:
            raise ConfigError(f"unknown channel {name!r}{hint}; known are {', '.join(CHANNELS)}")
    elif channel.training_input_mode == "Pipe":
        raise ConfigError(
            f"channel {name!r} uses Pipe mode, and a folder of photos can't be read from a pipe: "
            "set TrainingInputMode to File or FastFile"
        )


def _read_cluster(path: Path) -> Cluster:
    cluster = _read_optional(path, Cluster) or Cluster()
    if cluster.current_host not in cluster.hosts:
        raise ConfigError(f"{path}: current_host {cluster.current_host!r} is not one of hosts {list(cluster.hosts)}")
    return cluster


def _read_optional(path: Path, kind: type[Value]) -> Value | None:
    content = _read_json(path)
    return None if content is None else _validate(kind, content, str(path))


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None when there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should hold a JSON object, not {type(content).__name__}")
    return content


def _validate(kind: type[Value], content: object, where: str) -> Value:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join([where, ".".join(map(str, first["loc"]))] if first["loc"] else [where])
        raise ConfigError(f"{place}: {first['msg']}, not {first['input']!r}") from None
