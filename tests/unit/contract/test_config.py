"""Files of input/config, as the platform and local mode write them, and with errors."""

import json
from pathlib import Path

import pytest

from classifier.contract.channels import CHANNELS
from classifier.contract.config import Channel, StepRange, TrainingConfig, read_training_config
from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.paths import Paths
from classifier.errors import ConfigError

FILE = {
    "ContentType": "application/x-image",
    "TrainingInputMode": "File",
    "S3DistributionType": "FullyReplicated",
    "RecordWrapperType": "None",
}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """The minimal configuration: one channel."""
    paths = Paths(tmp_path)
    paths.config.mkdir(parents=True)
    write(paths, "inputdataconfig", {"train": FILE})
    return paths


def write(paths: Paths, name: str, content: object) -> None:
    (paths.config / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def read(paths: Paths) -> TrainingConfig:
    return read_training_config(paths, {})


def error_of(paths: Paths) -> str:
    with pytest.raises(ConfigError) as caught:
        read(paths)
    return str(caught.value)


def test_missing_files_have_defaults(paths: Paths) -> None:
    config = read(paths)
    assert config.hyperparameters == Hyperparameters()
    assert (config.cluster.hosts, config.cluster.rank) == (("algo-1",), 0)
    assert (config.checkpoint, config.hook, config.profiler, config.job_name) == (None, None, None, None)


def test_platform_files_are_read(paths: Paths) -> None:
    write(paths, "hyperparameters", {"epochs": "3", "learning-rate": '"0.01"', "_tuning_objective_metric": "x"})
    write(paths, "inputdataconfig", {"train": FILE, "validation": {**FILE, "TrainingInputMode": "FastFile"}})
    config = read_training_config(paths, {"TRAINING_JOB_NAME": "digits-1"})
    assert (config.hyperparameters.epochs, config.hyperparameters.lr) == (3, 0.01)
    assert config.channels["train"] == Channel(training_input_mode="File")
    assert config.channels["validation"].training_input_mode == "FastFile"
    assert config.job_name == "digits-1"


@pytest.mark.parametrize(
    "entry", [{}, {"TrainingInputMode": "File"}, {"TrainingInputMode": "File", "ContentType": None}]
)
def test_channel_of_local_mode_is_in_file_mode(paths: Paths, entry: dict[str, object]) -> None:
    write(paths, "inputdataconfig", {"train": entry})
    assert read(paths).channels == {"train": Channel.model_validate({})}


def test_unknown_fields_are_ignored(paths: Paths) -> None:
    write(paths, "inputdataconfig", {"train": {**FILE, "Brand": "new"}})
    write(paths, "resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"], "brand": {"new": 1}})
    assert set(read(paths).channels) == {"train"}


def test_other_files_are_not_read(paths: Paths) -> None:
    for name in ("init-config", "metric-definition-regex", "trainingjobconfig", "upstreamoutputdataconfig"):
        (paths.config / f"{name}.json").write_text("no JSON at all", encoding="utf-8")
    assert read(paths).channels


ALL_FILES = (
    "hyperparameters",
    "inputdataconfig",
    "resourceconfig",
    "checkpointconfig",
    "debughookconfig",
    "profilerconfig",
)


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"{'train': 1}", b"\xff\xfe{}", b'{"a": 1} and more'])
def test_invalid_json_is_an_error_that_names_the_file(paths: Paths, name: str, content: bytes) -> None:
    path = paths.config / f"{name}.json"
    path.write_bytes(content)
    assert error_of(paths).startswith(f"{path} is not JSON: ")


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize(("content", "kind"), [([], "list"), ("text", "str"), (3, "int"), (None, "NoneType")])
def test_json_other_than_an_object_is_an_error_that_names_the_file(
    paths: Paths, name: str, content: object, kind: str
) -> None:
    write(paths, name, content)
    assert error_of(paths) == f"{paths.config / name}.json should hold a JSON object, not {kind}"


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("inputdataconfig", {"train": {"TrainingInputMode": "Tape"}}, "channel 'train': TrainingInputMode: "),
        ("inputdataconfig", {"train": {"TrainingInputMode": 3}}, "channel 'train': TrainingInputMode: "),
        ("inputdataconfig", {"train": "File"}, "channel 'train': "),
        ("resourceconfig", {"hosts": "algo-1"}, "hosts: "),
        ("resourceconfig", {"hosts": []}, "hosts: "),
        ("checkpointconfig", {"LocalPath": 7}, "LocalPath: "),
        ("debughookconfig", {"HookParameters": {"save_interval": [2]}}, "HookParameters.save_interval: "),
        ("debughookconfig", {"CollectionConfigurations": [{}]}, "CollectionConfigurations.0.CollectionName: "),
        (
            "profilerconfig",
            {"ProfilingParameters": {"ProfilerEnabled": "perhaps"}},
            "ProfilingParameters.ProfilerEnabled: ",
        ),
    ],
)
def test_value_of_the_wrong_type_is_named_with_its_path(paths: Paths, name: str, content: object, where: str) -> None:
    write(paths, name, content)
    message = error_of(paths)
    assert message.startswith(f"{paths.config / name}.json: {where}")
    assert ": : " not in message


def test_no_channels_is_an_error(paths: Paths) -> None:
    write(paths, "inputdataconfig", {})
    assert error_of(paths).startswith("there is no channel 'train': ")
    assert "lists no channels" in error_of(paths)


def test_missing_list_of_channels_is_an_error(paths: Paths) -> None:
    path = paths.config / "inputdataconfig.json"
    path.unlink()
    assert error_of(paths) == f"{path} is missing: it lists the job's channels, of which 'train' is required"


def test_missing_train_channel_is_an_error_that_lists_the_others(paths: Paths) -> None:
    write(paths, "inputdataconfig", {"validation": FILE, "test": FILE})
    assert "lists only 'validation', 'test'; add one with a folder per class" in error_of(paths)


@pytest.mark.parametrize("channel", ["train", "validation", "test", "pretrained"])
def test_pipe_mode_is_an_error_for_known_channels(paths: Paths, channel: str) -> None:
    write(paths, "inputdataconfig", {"train": FILE, channel: {**FILE, "TrainingInputMode": "Pipe"}})
    assert error_of(paths).startswith(f"channel '{channel}' uses Pipe mode")
    assert error_of(paths).endswith("set TrainingInputMode to File or FastFile")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("training", "train"),
        ("Train", "train"),
        ("trian", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("dev", "validation"),
        ("Val", "validation"),
        ("testing", "test"),
        ("validaton", "validation"),
        ("tests", "test"),
        ("pre-trained", "pretrained"),
    ],
)
def test_misspelt_channel_is_an_error_with_a_suggestion(paths: Paths, wrong: str, meant: str) -> None:
    write(paths, "inputdataconfig", {"train": FILE, wrong: FILE})
    expected = f"unknown channel '{wrong}' (did you mean '{meant}'?); choose from {', '.join(CHANNELS)}"
    assert error_of(paths) == expected


def test_unrelated_channel_is_ignored_and_listed(paths: Paths) -> None:
    write(paths, "inputdataconfig", {"train": FILE, "other": FILE, "code": {**FILE, "TrainingInputMode": "Pipe"}})
    config = read(paths)
    assert set(config.channels) == {"train"}
    assert config.ignored_channels == ("other", "code")


@pytest.mark.parametrize(("host", "rank"), [("algo-1", 0), ("algo-10", 1), ("algo-2", 2)])
def test_rank_is_the_index_in_the_sorted_hosts(paths: Paths, host: str, rank: int) -> None:
    resources = {
        "current_host": host,
        "hosts": ["algo-2", "algo-10", "algo-1"],
        "network_interface_name": "eth0",
        "current_instance_type": "ml.g5.xlarge",
        "instance_groups": [{"instance_group_name": "homogeneousCluster", "hosts": ["algo-10", "algo-1", "algo-2"]}],
        "topology": None,
    }
    write(paths, "resourceconfig", resources)
    cluster = read(paths).cluster
    assert cluster.rank == rank
    assert cluster.network_interface_name == "eth0"
    assert cluster.current_instance_type == "ml.g5.xlarge"


def test_current_host_missing_from_hosts_is_an_error(paths: Paths) -> None:
    write(paths, "resourceconfig", {"current_host": "algo-3", "hosts": ["algo-1", "algo-2"]})
    assert error_of(paths).endswith("current_host 'algo-3' is not one of hosts ['algo-1', 'algo-2']")


@pytest.mark.parametrize(("hosts", "is_error"), [(["algo-1"], False), (["algo-1", "algo-2"], True)])
def test_divided_channel_is_an_error_with_several_hosts(paths: Paths, hosts: list[str], is_error: bool) -> None:
    write(paths, "resourceconfig", {"current_host": "algo-1", "hosts": hosts})
    write(paths, "inputdataconfig", {"train": {**FILE, "S3DistributionType": "ShardedByS3Key"}})
    if is_error:
        assert error_of(paths) == (
            "channel 'train' is divided among 2 hosts (ShardedByS3Key), and a class may lie on one of them alone: "
            "set S3DataDistributionType to FullyReplicated"
        )
    else:
        assert read(paths).channels["train"].s3_distribution_type == "ShardedByS3Key"


def test_channel_that_is_not_used_may_be_divided(paths: Paths) -> None:
    write(paths, "resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
    write(paths, "inputdataconfig", {"train": FILE, "other": {**FILE, "S3DistributionType": "ShardedByS3Key"}})
    assert read(paths).ignored_channels == ("other",)


def test_checkpoint_config_is_read(paths: Paths) -> None:
    write(paths, "checkpointconfig", {"LocalPath": "/opt/ml/checkpoints", "S3Uri": "s3://bucket/checkpoints"})
    checkpoint = read(paths).checkpoint
    assert checkpoint is not None
    assert checkpoint.local_path == Path("/opt/ml/checkpoints")


def test_debugger_config_is_read(paths: Paths) -> None:
    content = {
        "S3OutputPath": "s3://bucket/tensors",
        "LocalPath": "/opt/ml/output/tensors",
        "HookParameters": {"save_interval": "2"},
        "CollectionConfigurations": [
            {"CollectionName": "weights", "CollectionParameters": {"save_interval": "10"}},
            {"CollectionName": "losses"},
        ],
    }
    write(paths, "debughookconfig", content)
    hook = read(paths).hook
    assert hook is not None
    assert hook.local_path == Path("/opt/ml/output/tensors")
    assert hook.hook_parameters == {"save_interval": "2"}
    collections = {item.collection_name: item.collection_parameters for item in hook.collection_configurations}
    assert collections == {"weights": {"save_interval": "10"}, "losses": {}}


def test_profiler_config_is_read(paths: Paths) -> None:
    write(paths, "profilerconfig", {"ProfilingParameters": {"ProfilerEnabled": True, "LocalPath": "/tmp/profile"}})
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.profiling_parameters.profiler_enabled
    assert profiler.profiling_parameters.local_path == Path("/tmp/profile")


@pytest.mark.parametrize(
    "written",
    [
        '{"StartStep": 7, "NumSteps": 2}',
        "{'StartStep': 7, 'NumSteps': 2}",
        '{"StartStep": 7, "NumSteps": 2, "ProfileDefaultSteps": true}',
        '{"startstep": 7, "numsteps": 2}',
        {"StartStep": 7, "NumSteps": 2},
    ],
)
@pytest.mark.parametrize("name", ["DetailedProfilingConfig", "PythonProfilingConfig", "DataloaderProfilingConfig"])
def test_step_range_is_read_as_the_sdk_writes_it(paths: Paths, name: str, written: object) -> None:
    write(paths, "profilerconfig", {"ProfilingIntervalInMilliseconds": 1000, "ProfilingParameters": {name: written}})
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.profiling_interval_in_milliseconds == 1000
    operators = profiler.profiling_parameters.operators
    assert (operators.start_step, operators.num_steps) == (7, 2)


@pytest.mark.parametrize("written", ["", "{", "nonsense", 3, None, "{}", '{"StartStep": -1}', '{"StartUnixTime": "x"}'])
def test_unreadable_step_range_leaves_the_default(paths: Paths, written: object) -> None:
    write(paths, "profilerconfig", {"ProfilingParameters": {"DetailedProfilingConfig": written}})
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.profiling_parameters.operators == StepRange()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"StartStep": 7, "NumSteps": 0}, StepRange(start_step=7, num_steps=1)),
        ({"StartStep": 0, "NumSteps": 4}, StepRange(start_step=0, num_steps=4)),
        ({"StartStep": 7}, StepRange(start_step=7, num_steps=3)),
        ({"NumSteps": 2}, StepRange(start_step=5, num_steps=2)),
        ({"StartStep": 7, "NumSteps": -1}, StepRange(start_step=7, num_steps=3)),
    ],
)
def test_step_range_starts_at_zero_at_the_earliest_and_has_one_step_at_least(
    paths: Paths, written: object, expected: StepRange
) -> None:
    write(paths, "profilerconfig", {"ProfilingParameters": {"DetailedProfilingConfig": written}})
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.profiling_parameters.operators == expected


def test_operators_are_profiled_in_the_first_step_range_that_is_set(paths: Paths) -> None:
    names = ("DetailedProfilingConfig", "PythonProfilingConfig", "DataloaderProfilingConfig")
    ranges = {name: {"StartStep": number} for number, name in enumerate(names)}
    for number, name in enumerate(names):
        write(paths, "profilerconfig", {"ProfilingParameters": ranges})
        profiler = read(paths).profiler
        assert profiler is not None
        assert profiler.profiling_parameters.operators.start_step == number
        del ranges[name]


@pytest.mark.parametrize(
    ("milliseconds", "is_valid"), [(99, False), (100, True), (60_000, True), (60_001, False), (None, True)]
)
def test_profiling_interval_is_between_a_tenth_of_a_second_and_a_minute(
    paths: Paths, milliseconds: int | None, is_valid: bool
) -> None:
    content = {} if milliseconds is None else {"ProfilingIntervalInMilliseconds": milliseconds}
    write(paths, "profilerconfig", content)
    if is_valid:
        profiler = read(paths).profiler
        assert profiler is not None
        assert profiler.profiling_interval_in_milliseconds == (milliseconds or 500)
    else:
        assert "profilerconfig.json: ProfilingIntervalInMilliseconds: " in error_of(paths)


@pytest.mark.parametrize(
    ("content", "is_enabled"),
    [
        ({}, True),
        ({"ProfilingParameters": {"ProfilerEnabled": "true"}}, True),
        ({"ProfilingParameters": {"ProfilerEnabled": "false"}}, False),
        ({"DisableProfiler": True}, False),
    ],
)
def test_profiler_is_enabled_by_its_file_unless_disabled_in_it(
    paths: Paths, content: dict[str, object], is_enabled: bool
) -> None:
    write(paths, "profilerconfig", content)
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.is_enabled == is_enabled


def test_root_is_relocated_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Paths.from_environment().base == Path("/opt/ml")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert Paths.from_environment().channel("train") == tmp_path / "input" / "data" / "train"


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("config", "input/config"),
        ("model", "model"),
        ("output_data", "output/data"),
        ("tensorboard", "output/tensorboard"),
        ("failure", "output/failure"),
    ],
)
def test_folders_are_those_of_the_platform(part: str, place: str) -> None:
    assert getattr(Paths(), part) == Path("/opt/ml") / place


def test_paths_below_opt_ml_are_relocated_and_others_kept(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert paths.relocate(Path("/opt/ml/checkpoints")) == tmp_path / "checkpoints"
    assert paths.relocate(Path("/opt/ml")) == tmp_path
    assert paths.relocate(Path("/opt/mlx/checkpoints")) == Path("/opt/mlx/checkpoints")
