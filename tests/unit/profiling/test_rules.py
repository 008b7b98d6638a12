"""Rules on profiles with and without a problem, with AWS's names, parameters and defaults."""

from collections.abc import Sequence
from typing import Any

import pytest

from classifier.contract.findings import Finding
from classifier.profiling.profile import Profile
from classifier.profiling.rules import (
    RULES,
    BatchSize,
    CPUBottleneck,
    Dataloader,
    GPUMemoryIncrease,
    IOBottleneck,
    LoadBalancing,
    LowGPUUtilization,
    MaxInitializationTime,
    OverallSystemUsage,
    Rule,
    StepOutlier,
    evaluate,
)
from classifier.profiling.system import SystemSample
from support.profiles import START_S, aws_rules, profile, sample, samples, steps

GPU_RULES = (CPUBottleneck(), LowGPUUtilization(), BatchSize(), GPUMemoryIncrease(), LoadBalancing())
BUSY = {"gpus": (95.0,), "gpu_memory": (60.0,)}


def on_gpu(num: int = 60, **values: Any) -> Profile:
    return profile(samples=samples(num, **{**BUSY, **values}))


def mixed(*parts: tuple[int, dict[str, Any]]) -> Sequence[SystemSample]:
    """Return samples of several kinds, from (number of samples, values)."""
    kinds = [values for num, values in parts for _ in range(num)]
    return [sample(number, **{**BUSY, **values}) for number, values in enumerate(kinds)]


STARVED = {"cores": (100, 40), "gpus": (3.0,)}
WAITING = {"iowait": (80, 0), "gpus": (3.0,)}
FULL_CPU = {"cores": (95, 95), "gpus": (40.0,), "gpu_memory": (30.0,)}

FIRES = [
    (CPUBottleneck(), on_gpu(**STARVED)),
    (CPUBottleneck(), profile(samples=mixed((31, STARVED), (29, {})))),
    (IOBottleneck(), on_gpu(**WAITING)),
    (IOBottleneck(), profile(samples=samples(60, iowait=(80, 70)))),
    (LowGPUUtilization(), on_gpu(gpus=(30.0,))),
    (LowGPUUtilization(), on_gpu(gpus=(95.0, 20.0), gpu_memory=(60.0, 60.0))),
    (LowGPUUtilization(), profile(samples=mixed((54, {}), (6, {"gpus": (2.0,)})))),
    (BatchSize(), on_gpu(gpus=(40.0,), gpu_memory=(30.0,))),
    (GPUMemoryIncrease(), profile(samples=mixed((40, {}), (20, {"gpu_memory": (80.0,)})))),
    (LoadBalancing(), on_gpu(gpus=(95.0, 20.0), gpu_memory=(60.0, 60.0))),
    (Dataloader(), profile(steps=steps([0.5] * 120, data=[0.2] * 120))),
    (Dataloader(), profile(steps=steps([0.5] * 120, data=[0.05] * 120), num_workers=0)),
    (Dataloader(), profile(steps=steps([0.5] * 120, data=[0.05] * 120), num_workers=64)),
    (MaxInitializationTime(), profile(began_s=START_S - 21 * 60, ended_s=START_S + 9 * 3600)),
    (MaxInitializationTime(), profile(began_s=START_S - 100)),
    (StepOutlier(), profile(steps=steps([0.5] * 50 + [5.0] + [0.5] * 48))),
    (StepOutlier(), profile(steps=steps(([0.5] * 100 + [5.0]) * 20))),
    (StepOutlier(mode="validation"), profile(steps=steps([0.5] * 50 + [5.0], mode="validation"))),
]

QUIET = [
    (CPUBottleneck(), on_gpu()),
    (CPUBottleneck(), on_gpu(cores=(100, 100))),
    (CPUBottleneck(), profile(samples=mixed((29, STARVED), (31, {})))),
    (IOBottleneck(), on_gpu()),
    (IOBottleneck(), on_gpu(iowait=(80, 80))),
    (IOBottleneck(), profile(samples=samples(60, iowait=(80, 0)))),
    (LowGPUUtilization(), on_gpu()),
    (BatchSize(), on_gpu()),
    (BatchSize(), on_gpu(**FULL_CPU)),
    (GPUMemoryIncrease(), on_gpu()),
    (GPUMemoryIncrease(), profile(samples=mixed((10, {"gpu_memory": (5.0,)}), (50, {})))),
    (LoadBalancing(), on_gpu(gpus=(95.0, 92.0), gpu_memory=(60.0, 60.0))),
    (Dataloader(), profile()),
    (Dataloader(), profile(steps=steps([0.5] * 120, data=[0.05] * 120))),
    (Dataloader(), profile(num_workers=0)),
    (MaxInitializationTime(), profile()),
    (MaxInitializationTime(), profile(began_s=START_S - 19 * 60, ended_s=START_S + 9 * 3600)),
    (StepOutlier(), profile()),
    (StepOutlier(), profile(steps=steps([0.5, 0.6] * 60))),
    (StepOutlier(), profile(steps=steps(([0.5] * 100 + [5.0]) * 10))),
    # Four steps of 0.1 s in 15 s.
    (StepOutlier(), profile(steps=steps(([0.05] * 75 + [0.1]) * 4))),
    (StepOutlier(mode="validation"), profile(steps=steps([0.5] * 50, mode="validation"))),
    (OverallSystemUsage(), profile()),
    (OverallSystemUsage(), on_gpu(**STARVED)),
]


def name(value: object) -> str | None:
    return type(value).__name__ if callable(value) else ""


@pytest.mark.parametrize(("rule", "measured"), FIRES, ids=name)
def test_rule_fires_on_its_problem(rule: Rule, measured: Profile) -> None:
    finding = rule(measured)
    assert (finding.rule, finding.outcome) == (type(rule).__name__, "fired"), finding
    assert finding.seen
    assert finding.meaning.endswith(".")
    assert finding.advice.endswith(".")


@pytest.mark.parametrize(("rule", "measured"), QUIET, ids=name)
def test_rule_is_quiet_without_its_problem(rule: Rule, measured: Profile) -> None:
    finding = rule(measured)
    assert (finding.rule, finding.outcome) == (type(rule).__name__, "quiet"), finding
    assert (finding.meaning, finding.advice) == ("", "")


@pytest.mark.parametrize("rule", GPU_RULES, ids=name)
def test_gpu_rule_is_skipped_without_a_gpu(rule: Rule) -> None:
    finding = rule(profile())
    assert (finding.outcome, finding.seen) == ("skipped", "there is no GPU: the CPU itself computes")


def test_load_balancing_needs_two_gpus() -> None:
    assert LoadBalancing()(on_gpu()).seen == "there is one GPU: nothing to balance"


@pytest.mark.parametrize("rule", [*GPU_RULES, IOBottleneck()], ids=name)
def test_rule_is_skipped_if_the_training_was_too_short(rule: Rule) -> None:
    finding = rule(on_gpu(5, **STARVED))
    assert (finding.outcome, finding.seen) == ("skipped", "the training was too short: 5 samples, 10 are needed")


def test_samples_before_the_first_step_are_ignored() -> None:
    started_late = profile(samples=mixed((60, {"gpus": (0.0,)}), (60, {})), first_step_s=START_S + 30)
    assert LowGPUUtilization()(started_late).outcome == "quiet"


def test_all_rules_are_skipped_on_an_empty_profile() -> None:
    empty = profile(samples=[], steps=steps([]))
    assert {finding.outcome for finding in evaluate(empty)} == {"skipped"}


def test_failing_rule_is_skipped_and_the_others_are_evaluated() -> None:
    class Broken:
        name = "Broken"

        def __call__(self, _: Profile) -> Finding:
            raise ZeroDivisionError

    findings = evaluate(profile(), [Broken(), StepOutlier()])
    assert [(finding.rule, finding.outcome) for finding in findings] == [
        ("Broken", "skipped"),
        ("StepOutlier", "quiet"),
    ]
    assert "ZeroDivisionError" in findings[0].seen


def test_outlier_is_reported_with_its_step_and_phase() -> None:
    data = [0.0] * 60
    data[40] = 4.0
    finding = StepOutlier()(profile(steps=steps([0.5] * 40 + [4.5] + [0.5] * 19, data=data)))
    assert finding.step == 40
    assert "step 40 of train, took 4.50 s (median 0.50 s), most of it in data" in finding.seen
    assert "num_workers" in finding.advice


def test_advice_of_dataloader_depends_on_the_number_of_threads() -> None:
    waits = steps([0.5] * 120, data=[0.4] * 120)
    few, many, right = (Dataloader()(profile(steps=waits, num_workers=num)).advice for num in (0, 64, 2))
    assert "num_workers=auto" in few
    assert "Lower num_workers to 2" in many
    assert "num_workers" not in right


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_parameters_and_defaults_equal_those_of_aws(rule: Rule) -> None:
    """Except ``patience`` and ``scan_interval_us``, which configure a service that polls a running job."""
    expected = aws_rules()[type(rule).__name__]().rule_parameters
    parameters = vars(rule)
    for parameter in set(expected) - {"patience", "scan_interval_us", "rule_to_invoke"}:
        assert parameters[parameter] == expected[parameter], parameter


def test_all_ten_rules_of_aws_are_evaluated() -> None:
    assert {finding.rule for finding in evaluate(profile())} == set(aws_rules())
