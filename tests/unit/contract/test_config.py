"""input/config, as the platform, local mode and mistaken hands write it."""

import json
from pathlib import Path

import pytest

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
    """A platform that says as little as it may: one channel."""
    paths = Paths(tmp_path)
    paths.config.mkdir(parents=True)
    write(paths, "inputdataconfig", {"train": FILE})
    return paths


def write(paths: Paths, name: str, content: object) -> None:
    (paths.config / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def read(paths: Paths) -> TrainingConfig:
    return read_training_config(paths, {})


def refusal(paths: Paths) -> str:
    with pytest.raises(ConfigError) as caught:
        read(paths)
    return str(caught.value)


def test_what_the_platform_leaves_out_has_defaults(paths: Paths) -> None:
    config = read(paths)
    assert config.hyperparameters == Hyperparameters()
    assert (config.cluster.hosts, config.cluster.rank) == (("algo-1",), 0)
    assert (config.checkpoint, config.hook, config.profiler, config.job_name) == (None, None, None, None)


def test_what_the_platform_writes_is_read(paths: Paths) -> None:
    write(paths, "hyperparameters", {"epochs": "3", "learning-rate": '"0.01"', "_tuning_objective_metric": "x"})
    write(paths, "inputdataconfig", {"train": FILE, "validation": {**FILE, "TrainingInputMode": "FastFile"}})
    config = read_training_config(paths, {"TRAINING_JOB_NAME": "digits-1"})
    assert (config.hyperparameters.epochs, config.hyperparameters.lr) == (3, 0.01)
    assert config.channels["train"] == Channel.model_validate({"ContentType": "application/x-image"})
    assert config.channels["validation"].training_input_mode == "FastFile"
    assert config.job_name == "digits-1"


@pytest.mark.parametrize(
    "entry", [{}, {"TrainingInputMode": "File"}, {"TrainingInputMode": "File", "ContentType": None}]
)
def test_a_channel_as_local_mode_writes_it_is_a_channel_of_files(paths: Paths, entry: dict[str, object]) -> None:
    write(paths, "inputdataconfig", {"train": entry})
    assert read(paths).channels == {"train": Channel.model_validate({})}


def test_fields_that_the_platform_will_add_are_ignored(paths: Paths) -> None:
    write(paths, "inputdataconfig", {"train": {**FILE, "Brand": "new"}})
    write(paths, "resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"], "brand": {"new": 1}})
    assert set(read(paths).channels) == {"train"}


def test_the_platforms_other_files_are_not_read(paths: Paths) -> None:
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
def test_a_file_that_is_no_json_is_named(paths: Paths, name: str, content: bytes) -> None:
    path = paths.config / f"{name}.json"
    path.write_bytes(content)
    assert refusal(paths).startswith(f"{path} is not JSON: ")


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize(("content", "kind"), [([], "list"), ("text", "str"), (3, "int"), (None, "NoneType")])
def test_a_file_that_holds_no_object_is_named(paths: Paths, name: str, content: object, kind: str) -> None:
    write(paths, name, content)
    assert refusal(paths) == f"{paths.config / name}.json should hold a JSON object, not {kind}"


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("inputdataconfig", {"train": {"TrainingInputMode": "Tape"}}, "channel 'train': TrainingInputMode: "),
        ("inputdataconfig", {"train": {"ContentType": 3}}, "channel 'train': ContentType: "),
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
def test_a_value_of_the_wrong_type_is_named_with_its_place(
    paths: Paths, name: str, content: object, where: str
) -> None:
    write(paths, name, content)
    message = refusal(paths)
    assert message.startswith(f"{paths.config / name}.json: {where}")
    assert ": : " not in message


def test_no_channels_at_all_is_told(paths: Paths) -> None:
    (paths.config / "inputdataconfig.json").unlink()
    assert refusal(paths).startswith("there is no channel 'train': ")
    assert "names none at all" in refusal(paths)


def test_a_missing_train_channel_is_told_with_those_there_are(paths: Paths) -> None:
    write(paths, "inputdataconfig", {"validation": FILE, "test": FILE})
    assert "names only 'validation', 'test'; add one that holds a folder a class" in refusal(paths)


@pytest.mark.parametrize("channel", ["train", "validation", "test", "pretrained"])
def test_pipe_mode_is_refused_where_it_would_be_read(paths: Paths, channel: str) -> None:
    write(paths, "inputdataconfig", {"train": FILE, channel: {**FILE, "TrainingInputMode": "Pipe"}})
    assert refusal(paths).startswith(f"channel '{channel}' uses Pipe mode")
    assert refusal(paths).endswith("set TrainingInputMode to File or FastFile")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("training", "train"),
        ("Train", "train"),
        ("trian", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("dev", "validation"),
        ("validaton", "validation"),
        ("tests", "test"),
        ("pre-trained", "pretrained"),
    ],
)
def test_a_misspelt_channel_is_refused_with_what_was_meant(paths: Paths, wrong: str, meant: str) -> None:
    write(paths, "inputdataconfig", {"train": FILE, wrong: FILE})
    expected = f"unknown channel '{wrong}' (did you mean '{meant}'?); known are train, validation, test, pretrained"
    assert refusal(paths) == expected


def test_a_channel_of_another_kind_is_left_alone_and_told(paths: Paths) -> None:
    write(paths, "inputdataconfig", {"train": FILE, "model": FILE, "code": {**FILE, "TrainingInputMode": "Pipe"}})
    config = read(paths)
    assert set(config.channels) == {"train"}
    assert config.ignored_channels == ("model", "code")


@pytest.mark.parametrize(("host", "rank"), [("algo-1", 0), ("algo-10", 1), ("algo-2", 2)])
def test_the_rank_is_the_place_in_the_sorted_hosts(paths: Paths, host: str, rank: int) -> None:
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
    assert (cluster.rank, cluster.network_interface_name) == (rank, "eth0")
    assert cluster.current_instance_type == "ml.g5.xlarge"


def test_a_host_outside_its_own_cluster_is_refused(paths: Paths) -> None:
    write(paths, "resourceconfig", {"current_host": "algo-3", "hosts": ["algo-1", "algo-2"]})
    assert refusal(paths).endswith("current_host 'algo-3' is not one of hosts ['algo-1', 'algo-2']")


def test_checkpointing_was_asked_for(paths: Paths) -> None:
    write(paths, "checkpointconfig", {"LocalPath": "/opt/ml/checkpoints", "S3Uri": "s3://bucket/checkpoints"})
    checkpoint = read(paths).checkpoint
    assert checkpoint is not None
    assert checkpoint.local_path == Path("/opt/ml/checkpoints")


def test_the_debugger_was_asked_for(paths: Paths) -> None:
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
    assert (hook.s3_output_path, hook.local_path) == ("s3://bucket/tensors", Path("/opt/ml/output/tensors"))
    assert hook.hook_parameters == {"save_interval": "2"}
    collections = {item.collection_name: item.collection_parameters for item in hook.collection_configurations}
    assert collections == {"weights": {"save_interval": "10"}, "losses": {}}


def test_the_profiler_was_asked_for(paths: Paths) -> None:
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
def test_the_steps_to_look_at_are_read_as_the_sdk_writes_them(paths: Paths, name: str, written: object) -> None:
    write(paths, "profilerconfig", {"ProfilingIntervalInMilliseconds": 1000, "ProfilingParameters": {name: written}})
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.profiling_interval_in_milliseconds == 1000
    operators = profiler.profiling_parameters.operators
    assert (operators.start_step, operators.num_steps) == (7, 2)


@pytest.mark.parametrize("written", ["", "{", "nonsense", 3, None, "{}", '{"StartStep": -1}', '{"StartUnixTime": "x"}'])
def test_steps_that_cannot_be_read_leave_the_default(paths: Paths, written: object) -> None:
    write(paths, "profilerconfig", {"ProfilingParameters": {"DetailedProfilingConfig": written}})
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.profiling_parameters.operators == StepRange()


@pytest.mark.parametrize(
    ("content", "is_enabled"),
    [
        ({}, True),
        ({"ProfilingParameters": {"ProfilerEnabled": "true"}}, True),
        ({"ProfilingParameters": {"ProfilerEnabled": "false"}}, False),
        ({"DisableProfiler": True}, False),
    ],
)
def test_the_profiler_is_on_where_its_file_is_unless_switched_off(
    paths: Paths, content: dict[str, object], is_enabled: bool
) -> None:
    write(paths, "profilerconfig", content)
    profiler = read(paths).profiler
    assert profiler is not None
    assert profiler.is_enabled == is_enabled


def test_the_platforms_root_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Paths.from_environment().base == Path("/opt/ml")
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    assert Paths.from_environment().channel("train") == tmp_path / "input" / "data" / "train"


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("config", "input/config"),
        ("model", "model"),
        ("output_data", "output/data"),
        ("failure", "output/failure"),
    ],
)
def test_the_folders_are_where_the_platform_has_them(part: str, place: str) -> None:
    assert getattr(Paths(), part) == Path("/opt/ml") / place
