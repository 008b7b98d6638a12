"""Each rule fires on a faulty training and is quiet on a healthy one."""

from typing import Any

import pytest

from classifier.contract.findings import DEBUGGER_RULES, Finding
from classifier.debugging.evaluation import RULES
from classifier.errors import ConfigError
from support.debugged import Run, judge


def fired(finding: Finding) -> bool:
    assert finding.outcome != "skipped", finding.seen
    if finding.outcome in ("fired", "resolved"):
        assert finding.seen
        assert finding.meaning
        assert finding.advice
        assert finding.step is not None
    return finding.outcome in ("fired", "resolved")


def test_rules_are_those_of_the_contract() -> None:
    assert tuple(RULES) == DEBUGGER_RULES


FIRES = [
    ("LossNotDecreasing", "diverging"),
    ("Overfit", "memorizing"),
    ("Overtraining", "memorizing"),
    ("VanishingGradient", "vanishing"),
    ("ExplodingTensor", "diverging"),
    ("PoorWeightInitialization", "badly_initialized"),
    ("WeightUpdateRatio", "diverging"),
    ("AllZero", "dead"),
    ("UnchangedTensor", "dead"),
    ("DeadRelu", "dead"),
    ("SaturatedActivation", "saturated"),
    ("ClassImbalance", "imbalanced"),
    ("Confusion", "memorizing"),
]


@pytest.mark.parametrize(("rule", "run"), FIRES)
def test_rule_fires_on_a_faulty_training(rule: str, run: str, request: pytest.FixtureRequest) -> None:
    assert fired(judge(request.getfixturevalue(run), rule))


@pytest.mark.parametrize("rule", [rule for rule, _ in FIRES if rule != "SaturatedActivation"])
def test_rule_is_quiet_on_a_healthy_training(rule: str, healthy: Run) -> None:
    finding = judge(healthy, rule)
    assert not fired(finding), finding.seen


def test_tanh_of_usual_inputs_is_not_saturated(unsaturated: Run) -> None:
    assert not fired(judge(unsaturated, "SaturatedActivation"))


def test_saturation_is_skipped_without_tanh_or_sigmoid(healthy: Run) -> None:
    finding = judge(healthy, "SaturatedActivation")
    assert finding.outcome == "skipped"
    assert "tanh" in finding.seen


def test_variance_is_compared_with_the_given_thresholds(healthy: Run) -> None:
    assert fired(judge(healthy, "TensorVariance", max_threshold=1e-6))
    assert not fired(judge(healthy, "TensorVariance", max_threshold=1e6, min_threshold=0))
    assert judge(healthy, "TensorVariance").outcome == "skipped"


def test_run_is_similar_to_itself_but_not_to_another(healthy: Run, memorizing: Run) -> None:
    assert fired(judge(healthy, "SimilarAcrossRuns", other_trials=str(healthy.folder)))
    assert not fired(judge(healthy, "SimilarAcrossRuns", other_trials=str(memorizing.folder)))
    assert judge(healthy, "SimilarAcrossRuns").outcome == "skipped"


def test_training_without_a_saved_tensor_for_threshold_seconds_is_stalled(healthy: Run) -> None:
    assert fired(judge(healthy, "StalledTrainingRule", threshold=1e-9))
    assert not fired(judge(healthy, "StalledTrainingRule"))


def test_parameters_given_as_strings_are_applied(healthy: Run) -> None:
    assert fired(judge(healthy, "VanishingGradient", threshold="1000"))
    assert fired(judge(healthy, "AllZero", tensor_regex="input_1", threshold="1"))


def test_stagnating_loss_is_reported(badly_initialized: Run) -> None:
    finding = judge(badly_initialized, "LossNotDecreasing", num_steps=2)
    assert fired(finding)
    assert "has not fallen" in finding.seen


@pytest.mark.parametrize(("name", "value"), [("treshold", 1), ("threshold", "much")])
def test_error_for_a_wrong_parameter_lists_the_known_ones(healthy: Run, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"rule VanishingGradient, parameter {name}=.*known are threshold"):
        RULES["VanishingGradient"](healthy.trial, **{name: value})


def test_step_of_a_finding_is_a_training_step(diverging: Run) -> None:
    assert judge(diverging, "WeightUpdateRatio").step == 0
