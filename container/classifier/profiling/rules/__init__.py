"""AWS's built-in profiler rules: frozen values with AWS's names, parameters and defaults, evaluated on a profile."""

from __future__ import annotations

from collections.abc import Sequence

from classifier.contract.findings import Finding, guarded
from classifier.profiling.profile import Profile
from classifier.profiling.rules.base import Rule
from classifier.profiling.rules.steps import Dataloader, MaxInitializationTime, StepOutlier
from classifier.profiling.rules.system import (
    BatchSize,
    CPUBottleneck,
    GPUMemoryIncrease,
    IOBottleneck,
    LoadBalancing,
    LowGPUUtilization,
    OverallSystemUsage,
)

RULES: Sequence[Rule] = (
    CPUBottleneck(),
    IOBottleneck(),
    LowGPUUtilization(),
    BatchSize(),
    GPUMemoryIncrease(),
    LoadBalancing(),
    Dataloader(),
    MaxInitializationTime(),
    StepOutlier(),
    OverallSystemUsage(),
)


def evaluate(profile: Profile, rules: Sequence[Rule] = RULES) -> Sequence[Finding]:
    """Return a finding for each rule, in their order; a rule that raises is skipped."""
    return [guarded(rule, lambda rule=rule: rule(profile)) for rule in rules]
