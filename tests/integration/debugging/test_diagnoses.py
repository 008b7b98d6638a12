"""Small real trainings with one fault each, and healthy ones: the first diagnosis, and the rules in red.

``pytest -s -m "" tests/integration/debugging/test_diagnoses.py`` prints them as a table.
"""

import json
from pathlib import Path

import pytest

from classifier.contract.findings import read_findings
from support.faults import FAULTS, HEALTHY, Setting, write_weights
from support.jobs import Job, run_shared

_COMMON = {"image_size": "32", "batch_size": "16", "epochs": "5", "debug": "true"}
# The cheapest are in the default suite.
_QUICK = ("dead ReLUs",)
_SETTINGS = [
    pytest.param(setting, id=setting.name, marks=[] if setting.name in _QUICK else [pytest.mark.slow])
    for setting in (*FAULTS, *HEALTHY)
]


def train(setting: Setting, folder: Path) -> Job:
    """Run a setting as a job."""
    setting.photos(folder)
    channels = {name: folder / name for name in ("train", "validation")}
    hyperparameters = {**_COMMON, **setting.hyperparameters}
    if setting.weights is not None:
        channels["pretrained"] = folder / "pretrained"
        write_weights(
            channels["pretrained"], hyperparameters["model"], setting.weights, int(hyperparameters["image_size"])
        )
        hyperparameters["pretrained"] = "true"
    return run_shared(folder / "opt_ml", channels, **hyperparameters)


@pytest.mark.parametrize("setting", _SETTINGS)
def test_first_diagnosis_is_the_fault(setting: Setting, tmp_path: Path) -> None:
    job = train(setting, tmp_path)
    folder = job.paths.output_data
    diagnosis = json.loads((folder / "debugger.json").read_text(encoding="utf-8"))["diagnosis"]
    red = [finding.rule for finding in read_findings(folder / "debugger_findings.json") if finding.is_alarm]
    found = diagnosis and diagnosis["cause"]
    print(f"| {setting.name} | {setting.expected or '–'} | {found or '–'} | {', '.join(red) or '–'} |")
    assert found == setting.expected, job.log
    assert bool(red) == (setting.expected not in (None, "leak")), red
