"""The profiler's rules, by AWS's names: each a value with AWS's parameters, called with a profile for its finding."""

import traceback
from collections.abc import Callable, Sequence

from classifier.contract.findings import Finding
from classifier.profiling.profile import Profile
from classifier.profiling.step_rules import Dataloader, MaxInitializationTime, StepOutlier
from classifier.profiling.system_rules import (
    BatchSize,
    CPUBottleneck,
    GPUMemoryIncrease,
    IOBottleneck,
    LoadBalancing,
    LowGPUUtilization,
    OverallSystemUsage,
)

Rule = Callable[[Profile], Finding]

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
    """A finding of each rule. One that breaks is skipped, with its reason, and costs nothing else."""
    return [_evaluate(rule, profile) for rule in rules]


def _evaluate(rule: Rule, profile: Profile) -> Finding:
    try:
        return rule(profile)
    except Exception:
        reason = f"the rule itself failed\n{traceback.format_exc()}"
        return Finding(rule=type(rule).__name__, outcome="skipped", seen=reason)
