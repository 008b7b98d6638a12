"""Saved tensors, outputs of the debugger, and absence of side effects."""

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classifier.callbacks import Mode
from classifier.contract.findings import Finding
from classifier.debugging.debugger import Debugger, with_class_names
from classifier.debugging.evaluation import RULES, RuleEvaluator
from classifier.debugging.hook import close_hook, open_hook
from classifier.debugging.library import ModeKeys, create_trial, isolated
from classifier.debugging.records import write_step
from classifier.debugging.settings import DebuggerSettings
from classifier.debugging.tensors import open_trial
from classifier.errors import Stopped
from support.debugged import Run, debugged, network, points, record_losses, train

with isolated():
    from smdebug.core.writer import FileWriter
    from smdebug.exceptions import NoMoreData
    from smdebug.rules import invoke_rule


def collection(name: str, **parameters: str) -> dict[str, Any]:
    return {
        "CollectionName": name,
        "CollectionParameters": {key.replace("__", "."): v for key, v in parameters.items()},
    }


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def weights() -> list[np.ndarray]:
    """The first layer's weights before each step; filled while ``plain`` trains."""
    return []


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, module: nn.Module, weights: list[np.ndarray]) -> Run:
    """Without momentum, so that a step's change of the weights is its gradient."""

    def remember(_: int) -> None:
        weights.append(module.get_parameter("0.weight").detach().numpy().copy())

    folder = tmp_path_factory.mktemp("plain")
    return debugged(folder, module, lr=0.1, epochs=2, steps=10, momentum=0.0, change=remember)


def test_smdebug_reads_saved_tensors_by_mode_and_name(plain: Run) -> None:
    trial: Any = create_trial(str(plain.folder))
    assert trial.steps(mode=ModeKeys.TRAIN) == list(range(20))
    assert trial.steps(mode=ModeKeys.EVAL) == list(range(4))
    assert trial.loaded_all_steps
    assert trial.tensor_names(collection="losses") == ["CrossEntropyLoss_output_0"]
    assert trial.tensor_names(collection="weights") == ["Sequential_0.weight", "Sequential_2.weight"]
    assert trial.tensor_names(collection="biases") == ["Sequential_0.bias", "Sequential_2.bias"]
    assert "gradient/Sequential_2.bias" in trial.tensor_names(collection="gradients")


def test_saved_values_equal_the_values_in_torch(plain: Run, weights: list[np.ndarray]) -> None:
    trial: Any = create_trial(str(plain.folder))
    weight, gradient = trial.tensor("Sequential_0.weight"), trial.tensor("gradient/Sequential_0.weight")
    for step in range(19):
        np.testing.assert_array_equal(weight.value(step, mode=ModeKeys.TRAIN), weights[step])
        change = (weights[step] - weights[step + 1]) / 0.1
        np.testing.assert_allclose(gradient.value(step, mode=ModeKeys.TRAIN), change, atol=1e-5)
        change, size = np.linalg.norm(weights[step + 1] - weights[step]), np.linalg.norm(weights[step])
        ratio = trial.tensor("update_ratio/Sequential_0").value(step, mode=ModeKeys.TRAIN)
        np.testing.assert_allclose(ratio, change / size, rtol=1e-3)


def test_saved_losses_match_saved_logits_and_labels(plain: Run) -> None:
    trial: Any = create_trial(str(plain.folder))
    for step in trial.steps(mode=ModeKeys.EVAL):
        parts = [
            torch.as_tensor(trial.tensor(f"CrossEntropyLoss_{name}").value(step, mode=ModeKeys.EVAL).copy())
            for name in ("input_0", "input_1", "output_0")
        ]
        torch.testing.assert_close(nn.functional.cross_entropy(parts[0], parts[1]), parts[2])


def test_module_is_left_without_hooks_or_attributes(plain: Run, module: nn.Module) -> None:
    assert plain.findings
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert not hasattr(part, "_module_name")
    copy.deepcopy(module)


def test_series_file_has_losses_norms_and_ratios(plain: Run) -> None:
    series = json.loads((plain.output / "debugger_series.json").read_text(encoding="utf-8"))
    assert [step for step, _ in series["loss"]["train"]] == list(range(20))
    assert [step for step, _ in series["loss"]["validation"]] == [9, 19]
    assert set(series["gradient_norm"]) == set(series["update_ratio"]) == {"0", "2"}
    assert len(series["gradient_norm"]["0"]) == 20


def test_log_has_the_diagnosis_its_evidence_and_a_summary(diverging: Run, healthy: Run) -> None:
    assert len(healthy.lines) == 1
    assert "rules: 0 fired" in healthy.lines[0]
    words = [line.split()[1] for line in diverging.lines]
    assert words[:2] == ["diagnosis:", "evidence:"]
    assert "learning rate is too high. Try: a smaller lr" in diverging.lines[0]
    fired = next(line for line in diverging.lines if " fired: " in line).partition("fired: ")[2].split(", ")
    assert fired == [finding.rule for finding in diverging.findings.values() if finding.is_alarm]


def test_smdebug_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    debugged(tmp_path, network(), epochs=1, steps=2)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert logging.getLogger("smdebug").getEffectiveLevel() == logging.ERROR


def test_configuration_selects_tensors_and_steps(tmp_path: Path) -> None:
    config = {
        "HookParameters": {"save_interval": "4", "train.start_step": "4", "eval.save_steps": "1"},
        "CollectionConfigurations": [
            collection("losses", train__save_interval="1"),
            collection("weights", reductions="mean,abs_max,l2_norm"),
            collection("gradients", train__end_step="6"),
            collection("activations", include_regex="^1_output,^1_input", train__save_interval="5"),
        ],
    }
    run = debugged(tmp_path, network(), config, epochs=1)
    trial: Any = create_trial(str(run.folder))

    def steps(name: str, mode: ModeKeys = ModeKeys.TRAIN) -> list[int]:
        return trial.tensor(name).steps(mode=mode, show_incomplete_steps=True)

    assert steps("CrossEntropyLoss_output_0") == list(range(4, 10))
    assert steps("CrossEntropyLoss_output_0", ModeKeys.EVAL) == [0, 1]
    assert steps("Sequential_0.weight") == [4, 8]
    assert steps("gradient/Sequential_0.weight") == [4]
    assert steps("1_output_0") == steps("1_input_0") == [5]
    assert not trial.has_tensor("update_ratio/Sequential_0")
    inputs, outputs = (trial.tensor(name).value(5, mode=ModeKeys.TRAIN) for name in ("1_input_0", "1_output_0"))
    np.testing.assert_array_equal(outputs, np.maximum(inputs, 0))
    assert trial.tensor("Sequential_0.weight").reduction_value(4, "l2", mode=ModeKeys.TRAIN) > 0


def test_inputs_of_an_in_place_relu_are_saved_before_they_are_overwritten(tmp_path: Path) -> None:
    config = {"CollectionConfigurations": [collection("relu", include_regex="^1_input", save_interval="1")]}
    run = debugged(tmp_path, network(nn.ReLU(inplace=True)), config, epochs=1, steps=2)
    assert (run.trial.tensor("1_input_0").value(0) < 0).any()


def test_save_raw_tensor_as_a_string_saves_tensors_in_addition_to_reductions(tmp_path: Path) -> None:
    weights = collection("weights", save_interval="1", reductions="mean", save_raw_tensor="True")
    run = debugged(tmp_path, network(), {"CollectionConfigurations": [weights]}, epochs=1, steps=2)
    assert run.trial.tensor("Sequential_0.weight").value(0).shape == (16, 8)


def test_bf16_is_saved_as_float32(tmp_path: Path) -> None:
    data = points(64)[0].bfloat16(), points(64)[1]
    module = network().bfloat16()
    everything = [collection("activations", include_regex=".*put", save_interval="1", reductions="mean,variance")]
    everything += [collection(name, save_interval="1") for name in ("weights", "gradients", "losses")]
    config = {"CollectionConfigurations": everything}
    run = debugged(tmp_path, module, config, epochs=1, steps=2, data=data, validation=data)
    for name in ("Sequential_0.weight", "gradient/Sequential_0.weight", "CrossEntropyLoss_output_0"):
        assert run.trial.tensor(name).value(0).dtype == np.float32


def test_tensorboard_events_have_losses_and_histograms(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - slow

    settings = DebuggerSettings(folder=tmp_path / "tensors", tensorboard=tmp_path / "tb")
    train(Debugger(settings, tmp_path, lambda _: None), network(), epochs=1, steps=2)
    events = EventAccumulator(str(tmp_path / "tb" / "TRAIN")).Reload()
    assert "CrossEntropyLoss_output_0" in events.Tags()["scalars"]
    assert "weights/Sequential_0.weight" in events.Tags()["histograms"]


def test_rule_of_debug_stop_stops_the_training_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="the rule WeightUpdateRatio: a step changes the weights"):
        debugged(tmp_path, network(), lr=50.0, stop=("WeightUpdateRatio",))
    findings = Run(tmp_path / "tensors", tmp_path / "data").findings
    assert findings["WeightUpdateRatio"].outcome == "fired"
    assert len(Run(tmp_path / "tensors", tmp_path / "data").trial.steps(mode=ModeKeys.TRAIN)) == 10


def test_rules_are_evaluated_within_an_epoch_after_50_saved_steps(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="the rule WeightUpdateRatio"):
        debugged(tmp_path, network(), lr=50.0, epochs=1, steps=120, stop=("WeightUpdateRatio",))
    assert Run(tmp_path / "tensors", tmp_path / "data").trial.steps(mode=ModeKeys.TRAIN) == list(range(50))


def test_tensors_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    debugged(tmp_path / "a", network(), epochs=2, steps=4)
    settings = DebuggerSettings(folder=tmp_path / "a" / "tensors")
    train(Debugger(settings, tmp_path, lambda _: None), network(), epochs=1, steps=2)
    assert Run(settings.folder, tmp_path).trial.steps(mode=ModeKeys.TRAIN) == [0, 1]


def test_large_networks_are_saved_as_reductions_that_the_rules_can_evaluate(tmp_path: Path) -> None:
    run = debugged(tmp_path, network(nn.ReLU(), nn.ReLU(), width=1100), epochs=1, steps=4)
    saved = {(what, absolute) for what, absolute in run.trial.tensor("Sequential_0.weight").reduction_values(0)}
    assert saved == {("mean", False), ("variance", False), ("mean", True), ("max", True), ("l2", False)}
    for rule in ("VanishingGradient", "ExplodingTensor", "WeightUpdateRatio", "AllZero", "UnchangedTensor"):
        assert run.findings[rule].outcome == "quiet"
    size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    assert size < 2**20


def test_frozen_layers_are_neither_saved_nor_reported(tmp_path: Path) -> None:
    module = network()
    module.get_submodule("0").requires_grad_(requires_grad=False)
    run = debugged(tmp_path, module, epochs=1, steps=4)
    assert run.trial.tensor_names(collection="weights") == ["Sequential_2.weight"]
    assert run.findings["UnchangedTensor"].outcome == "quiet"


def test_class_numbers_are_replaced_by_names() -> None:
    seen = "class number 1 has 10 times as many photos as number 0 (141 against 14 of 501)"
    finding = with_class_names(Finding(rule="ClassImbalance", outcome="fired", seen=seen), ["dress", "t-shirt"])
    assert finding.seen == "'t-shirt' has 10 times as many photos as 'dress' (141 against 14 of 501)"
    unknown = Finding(rule="Confusion", outcome="fired", seen="17% of class number 8 are taken for number 7")
    assert with_class_names(unknown, ["dress"]) == unknown


def test_tensors_after_the_last_step_are_removed_when_a_training_goes_on(tmp_path: Path) -> None:
    steps: list[tuple[Mode, float]] = [("train", 0.5), ("train", 0.4), ("validation", 0.6), ("train", 0.3)]
    run = record_losses(tmp_path, steps)
    config = {"HookParameters": {}, "CollectionConfigurations": [{"CollectionName": "losses"}]}
    hook = open_hook(run.folder, None, config, {"GLOBAL": 1, "TRAIN": 1})
    kept = [path.name for path in sorted((run.folder / "events").iterdir())]
    assert kept == ["000000000000", "000000000001"]
    assert len(list((run.folder / "index").rglob("*.json"))) == 2
    hook.set_mode(ModeKeys.EVAL)
    hook.on_step_begin()
    hook.on_step_end()
    assert hook.steps() == {"GLOBAL": 2, "TRAIN": 1, "EVAL": 0}
    close_hook(hook)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.5),
        np.arange(300, dtype=np.int64),
        np.zeros((2, 3), dtype=np.float64),
        np.ones((1, 2, 3), dtype=np.uint8),
        np.array([True, False]),
    ],
)
def test_files_of_a_step_have_the_bytes_that_smdebug_writes(tmp_path: Path, value: Any) -> None:
    """In one fixed moment; smdebug's files begin with a record of the format's version, ours as its index says."""
    tensors = [("Net_fc.weight", np.asarray(value)), ("smdebug/reductions/mean/Net_fc.weight", np.array(1.5))]
    written_s = write_step(tmp_path / "ours", 1234, "worker_0", (ModeKeys.EVAL, 130), tensors)
    writer = FileWriter(trial_dir=str(tmp_path / "theirs"), step=1234, worker="worker_0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy's, for smdebug
        for name, one in tensors:
            writer.write_tensor(one, name, mode=ModeKeys.EVAL, mode_step=130, timestamp=written_s)
    writer.close()
    ours, theirs = (
        sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("ours", "theirs")
    )
    assert [path.relative_to(tmp_path / "ours") for path in ours] == [
        path.relative_to(tmp_path / "theirs") for path in theirs
    ]
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_reductions_equal_those_of_numpy(tmp_path: Path) -> None:
    weights = {"CollectionName": "weights", "CollectionParameters": {"save_interval": "1", "save_raw_tensor": "True"}}
    weights["CollectionParameters"]["reductions"] = "mean,variance,abs_mean,abs_max,l2_norm"
    run = debugged(tmp_path, network(), {"CollectionConfigurations": [weights]}, epochs=1, steps=2)
    tensor = run.trial.tensor("Sequential_0.weight")
    value = tensor.value(0)
    expected = {
        ("mean", False): value.mean(),
        ("variance", False): value.var(),
        ("mean", True): np.abs(value).mean(),
        ("max", True): np.abs(value).max(),
        ("l2", False): np.linalg.norm(value),
    }
    found = {(name, absolute): tensor.reduction_value(0, name, abs=absolute) for name, absolute in expected}
    assert found == {key: pytest.approx(float(figure), rel=1e-5) for key, figure in expected.items()}


@pytest.mark.parametrize("damage", ["event", "empty event", "no event", "index", "empty index"])
def test_damaged_files_are_skipped_and_counted(tmp_path: Path, damage: str) -> None:
    run = record_losses(tmp_path, [("train", 1 - 0.01 * step) for step in range(30)])
    files = sorted((run.folder / ("index" if "index" in damage else "events")).rglob("*worker*"))
    content = b"" if "empty" in damage else files[9].read_bytes()[:40]
    if damage == "no event":
        files[9].unlink()
    else:
        files[9].write_bytes(content)
    evaluator = RuleEvaluator(open_trial(str(run.folder)))
    findings = {finding.rule: finding for finding in evaluator.finish()}
    assert evaluator.tensors.damaged == {9}
    assert len(evaluator.curves.training) == 29
    assert findings["StalledTrainingRule"].outcome == "quiet"
    assert findings["LossNotDecreasing"].outcome == "quiet"


def test_smdebugs_readers_end_by_themselves_also_on_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the platform, which sets this variable, smdebug leaves the mark of the end to it."""
    monkeypatch.setenv("TRAINING_JOB_NAME", "job")
    run = debugged(tmp_path, network(), epochs=1, steps=4)
    trial: Any = create_trial(str(run.folder))
    trial._training_end_delay_refresh = 0
    rule = RULES["VanishingGradient"](trial)
    with pytest.raises(NoMoreData):
        invoke_rule(rule)
    assert trial.loaded_all_steps


def test_killed_training_leaves_findings(tmp_path: Path) -> None:
    """Those of the epochs so far: a kill ends the training without a last call."""

    class Killed(Debugger):
        def on_train_end(self) -> None:
            """Not reached."""

    settings = DebuggerSettings(folder=tmp_path / "tensors")
    train(Killed(settings, tmp_path / "data", lambda _: None), network(), lr=50.0, epochs=2)
    findings = Run(settings.folder, tmp_path / "data").findings
    assert findings["LossNotDecreasing"].outcome == "fired"
    assert json.loads((tmp_path / "data" / "debugger.json").read_text(encoding="utf-8"))["diagnosis"]


def test_weights_that_are_zero_by_design_have_no_update_ratio(tmp_path: Path) -> None:
    module = network()
    with torch.no_grad():
        module.get_parameter("2.weight").zero_()
    run = debugged(tmp_path, module, epochs=1)
    assert run.trial.tensor("update_ratio/Sequential_2").steps()[0] == 1
    alarms = {name for name, finding in run.findings.items() if finding.outcome in ("fired", "resolved")}
    assert not alarms & {"AllZero", "VanishingGradient", "WeightUpdateRatio"}
