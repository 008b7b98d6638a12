"""Evaluate the debugger's rules on the saved tensors of a job.

With all rules, on tensors in a job's output/data, also rewrites what its report.html shows of them.

Examples:
  .venv/bin/python scripts/evaluate_rules.py local_test/opt_ml/output/data/tensors
  .venv/bin/python scripts/evaluate_rules.py s3://my-bucket/job/debug-output \\
      --rule LossNotDecreasing num_steps=20 --rule VanishingGradient
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.contract.findings import DEBUGGER_RULES, Diagnosis, Finding, write_findings
from classifier.errors import ConfigError, did_you_mean
from classifier.reporting.page import write_page
from classifier.reporting.summary import has_record
from commands.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Print and write the findings; return 0 whether or not a rule fired, 1 on an error."""
    options = _parse(arguments)
    return run_command("evaluate_rules", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    rules = _rules(options.rule or [])
    # smdebug takes a second to import, so arguments are checked before.
    from classifier.debugging.debugger import make_report  # noqa: PLC0415
    from classifier.debugging.evaluation import RuleEvaluator  # noqa: PLC0415
    from classifier.debugging.tensors import open_trial  # noqa: PLC0415

    evaluator = RuleEvaluator(open_trial(options.tensors), rules)
    evaluator.finish()
    report = make_report(evaluator)
    findings = [finding for finding in report.findings if not rules or finding.rule in rules]
    if options.output:
        write_findings(options.output, findings)
    if not rules and report.diagnosis is not None:
        print("\n".join(_diagnosis_lines(report.diagnosis)))
    print("\n".join(line for finding in findings for line in _lines(finding)))
    if evaluator.tensors.damaged:
        print(f"skipped {len(evaluator.tensors.damaged)} damaged files")
    if options.output:
        print(f"findings in {options.output}")
    if not rules and has_record(folder := Path(options.tensors).parent):
        report.write(folder)
        print(f"report in {write_page(folder)}")
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


def _diagnosis_lines(diagnosis: Diagnosis) -> list[str]:
    lines = [f"diagnosis: {diagnosis.title}", *(f"           {one}" for one in diagnosis.evidence)]
    return lines + ([f"           Try: {diagnosis.advice}"] if diagnosis.advice else [])


def _lines(finding: Finding) -> list[str]:
    step = "" if finding.step is None else f"  step {finding.step}"
    lines = [f"{finding.outcome:<8} {finding.rule}{step}" + (f"  {finding.seen}" if finding.seen else "")]
    if finding.outcome in ("fired", "resolved"):
        lines += [f"         {finding.meaning}", f"         {finding.history()}"]
        lines += [f"         Try: {finding.advice}"] if finding.advice else []
    return lines


if __name__ == "__main__":
    sys.exit(main())
