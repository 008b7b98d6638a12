"""Each rule fires on a faulty training and is quiet on a healthy one."""

from typing import Any

import pytest

from classifier.contract.findings import DEBUGGER_RULES, Finding
from classifier.debugging.rules import RULES
from classifier.errors import ConfigError
from support.debugged import Run, judge


def fired(finding: Finding) -> bool:
    assert finding.outcome != "skipped", finding.seen
    if finding.outcome == "fired":
        assert finding.seen
        assert finding.meaning
        assert finding.advice
        assert finding.step is not None
    return finding.outcome == "fired"


def test_every_rule_that_can_be_named_is_there() -> None:
    assert tuple(RULES) == DEBUGGER_RULES


FIRES = [
    ("LossNotDecreasing", "diverging"),
    ("Overfit", "memorising"),
    ("Overtraining", "memorising"),
    ("VanishingGradient", "fading"),
    ("ExplodingTensor", "diverging"),
    ("PoorWeightInitialization", "swelling"),
    ("WeightUpdateRatio", "diverging"),
    ("AllZero", "dead"),
    ("UnchangedTensor", "dead"),
    ("DeadRelu", "dead"),
    ("SaturatedActivation", "saturated"),
    ("ClassImbalance", "lopsided"),
    ("Confusion", "memorising"),
]


@pytest.mark.parametrize(("rule", "run"), FIRES)
def test_rule_fires_where_it_should(rule: str, run: str, request: pytest.FixtureRequest) -> None:
    assert fired(judge(request.getfixturevalue(run), rule))


@pytest.mark.parametrize("rule", [rule for rule, _ in FIRES if rule != "SaturatedActivation"])
def test_rule_is_quiet_on_a_training_that_goes_well(rule: str, healthy: Run) -> None:
    finding = judge(healthy, rule)
    assert not fired(finding), finding.seen


def test_tanh_of_usual_inputs_is_not_saturated(supple: Run) -> None:
    assert not fired(judge(supple, "SaturatedActivation"))


def test_network_without_tanh_is_not_judged_for_it(healthy: Run) -> None:
    finding = judge(healthy, "SaturatedActivation")
    assert finding.outcome == "skipped"
    assert "tanh" in finding.seen


def test_variance_is_held_against_the_thresholds_given(healthy: Run) -> None:
    assert fired(judge(healthy, "TensorVariance", max_threshold=1e-6))
    assert not fired(judge(healthy, "TensorVariance", max_threshold=1e6, min_threshold=0))
    assert judge(healthy, "TensorVariance").outcome == "skipped"


def test_run_is_like_itself_and_unlike_another(healthy: Run, memorising: Run) -> None:
    assert fired(judge(healthy, "SimilarAcrossRuns", other_trials=str(healthy.folder)))
    assert not fired(judge(healthy, "SimilarAcrossRuns", other_trials=str(memorising.folder)))
    assert judge(healthy, "SimilarAcrossRuns").outcome == "skipped"


def test_training_stalls_when_no_tensor_comes_for_the_threshold(healthy: Run) -> None:
    assert fired(judge(healthy, "StalledTrainingRule", threshold=1e-9))
    assert not fired(judge(healthy, "StalledTrainingRule"))


def test_parameters_are_read_from_strings_and_change_the_verdict(healthy: Run) -> None:
    assert fired(judge(healthy, "VanishingGradient", threshold="1000"))
    assert fired(judge(healthy, "AllZero", tensor_regex="input_1", threshold="1"))


def test_stagnating_loss_is_found(swelling: Run) -> None:
    finding = judge(swelling, "LossNotDecreasing", num_steps=2)
    assert fired(finding)
    assert "no longer falls" in finding.seen


@pytest.mark.parametrize(("name", "value"), [("treshold", 1), ("threshold", "much")])
def test_wrong_parameter_is_an_error_that_lists_the_known_ones(healthy: Run, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"rule VanishingGradient, parameter {name}=.*known are threshold"):
        RULES["VanishingGradient"](healthy.trial, **{name: value})


def test_step_of_a_finding_is_the_training_s(diverging: Run) -> None:
    assert judge(diverging, "WeightUpdateRatio").step == 0
