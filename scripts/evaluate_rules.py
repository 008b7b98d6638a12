"""Evaluate the debugger's rules on the saved tensors of a job.

Examples:
  .venv/bin/python scripts/evaluate_rules.py local_test/opt_ml/output/data/tensors
  .venv/bin/python scripts/evaluate_rules.py s3://my-bucket/job/debug-output \\
      --rule LossNotDecreasing num_steps=20 --rule VanishingGradient
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.contract.findings import DEBUGGER_RULES, Finding, write_findings
from classifier.errors import ConfigError, did_you_mean
from commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the findings; return 0 whether or not a rule fired, 1 on an error."""
    options = _parse(arguments)
    return run_command("evaluate_rules", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    findings = _evaluate(options.tensors, _rules(options.rule or []))
    if options.output:
        write_findings(options.output, findings)
    print("\n".join(line for finding in findings for line in _lines(finding)))
    if options.output:
        print(f"findings in {options.output}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tensors", help="folder or S3 prefix with tensors saved by smdebug")
    parser.add_argument(
        "--rule",
        action="append",
        nargs="+",
        metavar=("NAME", "KEY=VALUE"),
        help=f"evaluate only this rule, with these parameters; can be repeated. Rules: {', '.join(DEBUGGER_RULES)}",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("findings.json"), help="JSON file of the findings (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def _rules(given: Sequence[Sequence[str]]) -> dict[str, dict[str, str]]:
    """Parse the values of --rule: ``{"AllZero": {"threshold": "90"}}`` for ``[["AllZero", "threshold=90"]]``.

    Raises:
        ConfigError: a rule is unknown, or a parameter has no value.
    """
    rules: dict[str, dict[str, str]] = {}
    for name, *pairs in given:
        if name not in DEBUGGER_RULES:
            known = ", ".join(DEBUGGER_RULES)
            raise ConfigError(f"--rule {name}: no such rule{did_you_mean(name, DEBUGGER_RULES)}; known are {known}")
        for pair in pairs:
            if "=" not in pair:
                raise ConfigError(f"--rule {name} {pair}: write the parameter as KEY=VALUE")
        rules[name] = dict(pair.split("=", 1) for pair in pairs)
    return rules


def _evaluate(tensors: str, rules: dict[str, dict[str, str]]) -> list[Finding]:
    # smdebug takes a second to import, so arguments are checked before.
    from classifier.debugging.evaluation import RuleEvaluator  # noqa: PLC0415
    from classifier.debugging.tensors import open_trial  # noqa: PLC0415

    findings = RuleEvaluator(open_trial(tensors), rules).finish()
    return [finding for finding in findings if not rules or finding.rule in rules]


def _lines(finding: Finding) -> list[str]:
    step = "" if finding.step is None else f"  step {finding.step}"
    lines = [f"{finding.outcome:<8} {finding.rule}{step}" + (f"  {finding.seen}" if finding.seen else "")]
    if finding.outcome == "fired":
        lines += [f"         {finding.meaning}", f"         Try: {finding.advice}"]
    return lines


if __name__ == "__main__":
    sys.exit(main())
