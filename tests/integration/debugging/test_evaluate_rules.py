"""``scripts/evaluate_rules.py`` on saved tensors in a folder and in S3."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from classifier.contract.findings import read_findings
from classifier.debugging.library import S3Handler
from evaluate_rules import main
from support.debugged import Run, debugged, network


@pytest.fixture(scope="module")
def diverging(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return debugged(tmp_path_factory.mktemp("diverging"), network(), lr=50.0, epochs=3)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, moto_url: str) -> Iterator[str]:
    """A bucket of a local S3 server."""
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    # smdebug caches its client for the lifetime of the process.
    S3Handler.client.cache_clear()
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="saved-tensors")
    yield "saved-tensors"
    S3Handler.client.cache_clear()


def test_findings_are_printed_and_written(diverging: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(diverging.folder), "--output", str(tmp_path / "findings.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "diagnosis: The learning rate is too high"
    start = "resolved WeightUpdateRatio  step 0  "
    number = next(number for number, line in enumerate(lines) if line.startswith(start))
    assert lines[number + 2].startswith("         fired ")
    assert lines[number + 3].startswith("         Try: a smaller lr")
    assert {one.rule: one for one in read_findings(tmp_path / "findings.json")} == diverging.findings


def test_report_of_a_training_is_rewritten(diverging: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(diverging.folder, tmp_path / "data" / "tensors").parent
    (folder / "history.csv").write_text("epoch,train:loss,validation:loss\n1,2.0,1.0\n", encoding="utf-8")
    damaged = sorted((folder / "tensors" / "events").rglob("*worker*"))[7]
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert main([str(folder / "tensors"), "--output", str(tmp_path / "findings.json")]) == 0
    assert "skipped 1 damaged files\n" in capsys.readouterr().out
    assert "The learning rate is too high" in (folder / "report.html").read_text(encoding="utf-8")
    assert read_findings(folder / "debugger_findings.json") == read_findings(tmp_path / "findings.json")


def test_single_rule_is_evaluated_with_its_own_parameters(
    diverging: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "findings.json"
    options = ["--rule", "WeightUpdateRatio", "large_threshold=1e30", "small_threshold=0", "--output", str(output)]
    assert main([str(diverging.folder), *options]) == 0
    assert [one["rule"] for one in json.loads(output.read_text(encoding="utf-8"))] == ["WeightUpdateRatio"]
    assert capsys.readouterr().out.startswith("quiet    WeightUpdateRatio")


def test_tensors_are_read_from_s3(diverging: Run, bucket: str, tmp_path: Path) -> None:
    client = boto3.client("s3", region_name="us-east-1")
    for path in diverging.folder.rglob("*"):
        if path.is_file():
            key = f"job/debug-output/{path.relative_to(diverging.folder)}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    assert main([f"s3://{bucket}/job/debug-output", "--output", str(tmp_path / "findings.json")]) == 0
    assert {one.rule: one for one in read_findings(tmp_path / "findings.json")} == diverging.findings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["/nowhere"], "evaluate_rules: /nowhere has no tensors of smdebug"),
        (["/nowhere", "--rule", "AllZeros"], "evaluate_rules: --rule AllZeros: no such rule (did you mean 'AllZero'?)"),
        (
            ["/nowhere", "--rule", "AllZero", "threshold"],
            "evaluate_rules: --rule AllZero threshold: write the parameter as",
        ),
    ],
)
def test_error_message_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 1
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_error_for_an_unknown_parameter_lists_the_known_ones(
    diverging: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(diverging.folder), "--rule", "VanishingGradient", "treshold=1"]) == 1
    assert "parameter treshold='1': Extra inputs are not permitted; known are threshold" in capsys.readouterr().err
