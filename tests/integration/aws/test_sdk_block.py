"""The README's example for the SageMaker Python SDK, run by the SDK itself up to the request that it sends.

Moto has no SimulatePrincipalPolicy, with which the SDK checks the role. The request is denied here, as it is for many
users, and the SDK continues.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from classifier.contract.hyperparameters import Hyperparameters
from classifier.contract.metrics import METRICS

if TYPE_CHECKING:
    from support.cloud_script import Cloud

pytestmark = pytest.mark.gate

README = Path(__file__).resolve().parents[3] / "README.md"
TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}


@pytest.fixture
def block() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = next((one for one in blocks if "ModelTrainer" in one), None)
    assert found is not None, "README.md has no example with ModelTrainer"
    return found


@pytest.mark.slow
def test_readme_example_sends_a_valid_training_job(block: str, shell: Any, cloud: "Cloud", tmp_path: Path) -> None:
    cloud.refuse_query("SimulatePrincipalPolicy", "AccessDenied")
    _make(shell, role=re.findall(r"role/([\w+=,.@-]+)", block)[0], buckets=set(re.findall(r"s3://([\w.-]+)", block)))
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "block.py"],
        check=False,
        cwd=tmp_path,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    sent = cloud.bodies("CreateTrainingJob")[0]
    assert Hyperparameters.parse(sent["HyperParameters"])
    assert {one["ChannelName"] for one in sent["InputDataConfig"]} == {"train", "validation", "test"}
    assert "ContainerEntrypoint" not in sent["AlgorithmSpecification"]
    assert [one["Name"] for one in sent["AlgorithmSpecification"]["MetricDefinitions"]] == list(METRICS)
    assert [one["Regex"] for one in sent["AlgorithmSpecification"]["MetricDefinitions"]] == [
        one.regex for one in METRICS.values()
    ]


def _make(shell: Any, role: str, buckets: set[str]) -> None:
    """Create the role and the buckets that the example uses."""
    trust = json.dumps({"Version": "2012-10-17", "Statement": [TRUST]})
    shell.client("iam").create_role(RoleName=role, AssumeRolePolicyDocument=trust)
    for bucket in buckets:
        shell.client("s3").create_bucket(Bucket=bucket)
