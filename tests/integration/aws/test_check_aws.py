"""check_aws.py as a process against moto; quotas, prices and the image's configuration are scripted."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.price_list import product

if TYPE_CHECKING:
    from support.cloud_script import Cloud

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
TRUST = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
QUOTAS = {
    "ml.g5.xlarge for training job usage": 2.0,
    "ml.m5.large for endpoint usage": 4.0,
    "ml.m5.xlarge for transform job usage": 1.0,
}


@pytest.fixture
def image(shell: Any, cloud: "Cloud", name: str) -> str:
    """The address of an image for linux/amd64."""
    cloud.answer("GetDownloadUrlForLayer", {"downloadUrl": f"{cloud.url}/config"})
    cloud.answer("/config", {"os": "linux", "architecture": "amd64"})
    return push(shell, name, "application/vnd.docker.distribution.manifest.v2+json")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"check-{abs(hash(request.node.nodeid))}"


def push(shell: Any, name: str, media_type: str) -> str:
    ecr = shell.client("ecr")
    ecr.create_repository(repositoryName=name)
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": {"digest": f"sha256:{'0' * 64}"}}
    ecr.put_image(repositoryName=name, imageTag="v1", imageManifest=json.dumps(manifest))
    return f"{REGISTRY}/{name}:v1"


def add_role(shell: Any, name: str, *statements: Any) -> str:
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    return shell.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]


def list_quotas(cloud: "Cloud", **changed: float) -> None:
    """Answer with two pages of quotas."""
    quotas = [{"QuotaName": name, "Value": changed.get(name, value)} for name, value in QUOTAS.items()]
    cloud.answer("ListServiceQuotas", {"Quotas": quotas[:1], "NextToken": "2"}, times=1)
    cloud.answer("ListServiceQuotas", {"Quotas": quotas[1:]})


def check(shell: Any, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    done = shell.run("check_aws", *arguments, **environment)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_account_with_everything_passes(shell: Any, cloud: "Cloud", bucket: str, image: str, name: str) -> None:
    arn = add_role(shell, name, {"Effect": "Allow", "Principal": "*", "Action": "sts:TagSession"}, TRUST)
    list_quotas(cloud)
    cloud.answer("GetProducts", {"PriceList": [product("USE1-Train:ml.g5.xlarge", "1.5")]})
    code, lines = check(shell, f"s3://{bucket}/dogs", "--role", name, "--image", image, "--instances", "2")
    assert lines[:2] == [
        "✓ identity  arn:aws:sts::123456789012:user/moto in us-east-1",
        f"✓ role      {arn}, which sagemaker.amazonaws.com may assume",
    ]
    assert lines[2:7] == [
        f"✓ bucket    s3://{bucket} is in us-east-1",
        "✓ quota     ml.g5.xlarge for training job usage: 2",
        "✓ quota     ml.m5.large for endpoint usage: 4",
        "✓ quota     ml.m5.xlarge for transform job usage: 1",
        f"✓ image     {name}:v1 is for linux/amd64, pushed as application/vnd.docker.distribution.manifest.v2+json",
    ]
    assert lines[7].startswith("✓ prices    1 × ml.g5.xlarge, $1.50 an hour (AWS price list of ")
    assert (code, len(lines)) == (0, 8)
    assert cloud.bodies("BatchGetImage")[0]["registryId"] == "123456789012"


def test_every_fault_says_what_to_do(shell: Any, cloud: "Cloud", bucket: str, name: str) -> None:
    add_role(shell, name, {**TRUST, "Principal": {"Service": ["ec2.amazonaws.com"]}})
    far = f"far-{bucket}"[:63]
    shell.client("s3").create_bucket(Bucket=far, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    list_quotas(cloud, **{"ml.g5.xlarge for training job usage": 0.0})
    image = push(shell, name, "application/vnd.oci.image.index.v1+json")
    options = ("--role", name, "--image", image, "--endpoint-instance", "ml.c5.large")
    code, lines = check(shell, f"s3://{far}", "s3://no-such-bucket-at-all", "photos", *options)
    assert code == 1
    assert [line[0] for line in lines] == list("✓✗✗✗✗✗✗✓✗?")
    found = "\n".join(lines)
    for message in (
        f"role/{name} does not trust sagemaker.amazonaws.com, which has to assume it: add the trust policy of docs/aws",
        f"s3://{far} is in eu-west-1, and the job would run in us-east-1: give --region eu-west-1, or a bucket there",
        "s3://no-such-bucket-at-all: there is no such bucket; `aws s3 mb`",
        "photos: has to be an address of the form s3://BUCKET/PREFIX",
        "training job usage: 0, and 1 needed; request an increase on https://console.aws.amazon.com/servicequotas",
        "ml.c5.large for endpoint usage: there is no such quota in this region",
        "is pushed as application/vnd.oci.image.index.v1+json, which SageMaker refuses: build it with",
        "$1.41 an hour (built-in table, us-east-1, 2026); AWS's price list needs pricing:GetProducts",
    ):
        assert message in found


def test_missing_permissions_are_not_faults_and_named(shell: Any, cloud: "Cloud", bucket: str, image: str) -> None:
    cloud.refuse_query("GetRole", "AccessDenied")
    cloud.refuse("ListServiceQuotas", "AccessDeniedException", "not authorized to perform:\nservicequotas:List…")
    cloud.refuse("BatchGetImage", "AccessDeniedException", "not authorized to perform: ecr:BatchGetImage")
    code, lines = check(shell, f"s3://{bucket}", "--role", "Trainer", "--image", image)
    assert (code, [line[0] for line in lines]) == (0, list("✓?✓???"))
    assert lines[1] == (
        "? role      not checked: role Trainer: your user may not look roles up, which needs iam:GetRole; give the "
        "role's ARN instead: --role arn:aws:iam::ACCOUNT:role/Trainer"
    )
    assert "servicequotas:List…" in lines[3]
    assert "ecr:BatchGetImage" in lines[4]


def test_missing_image_role_and_foreign_account_say_what_to_give(shell: Any, cloud: "Cloud", name: str) -> None:
    list_quotas(cloud)
    shell.environment.pop("SAGEMAKER_ROLE", None)
    missing = f"✗ image     {name}:v9 is not in ECR: push it with scripts/build_and_push.sh, which prints its address"
    _, lines = check(shell, IMAGE_URI=f"{REGISTRY}/{name}:v9")
    assert lines[1].startswith("✗ role      no role is given, which SageMaker needs")
    assert lines[5] == missing
    push(shell, name, "application/vnd.docker.distribution.manifest.v2+json")
    _, lines = check(shell, IMAGE_URI=f"{REGISTRY}/{name}:v9")
    assert lines[5] == missing
    role = "arn:aws:iam::999999999999:role/Other"
    _, lines = check(shell, "--role", role, "--image", "python:3.11")
    assert lines[1] == (
        f"✗ role      {role} is a role of another account than yours, 123456789012: give one of this account"
    )
    assert lines[5].startswith("✗ image     python:3.11 is not in ECR: SageMaker needs ACCOUNT.dkr.ecr.REGION")
    _, lines = check(shell, "--image", f"{REGISTRY.replace('us-east-1', 'eu-west-1')}/dogs@sha256:0f")
    assert "dogs@sha256:0f is in eu-west-1, and jobs in us-east-1 can't use it" in lines[5]


def test_without_credentials_there_is_one_line(shell: Any) -> None:
    del shell.environment["AWS_ACCESS_KEY_ID"], shell.environment["AWS_SECRET_ACCESS_KEY"]
    code, lines = check(shell)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("✗ identity  identity: no AWS credentials are set: run `aws configure`")


def test_role_that_may_not_be_looked_up_is_no_fault_of_s3(shell: Any, cloud: "Cloud") -> None:
    cloud.refuse_query("GetRole", "AccessDenied")
    options = ("--channel", "train=s3://b/t/", "--output", "s3://b/m", "--image", f"{REGISTRY}/dogs:v1")
    refused = shell.run("train", *options, "--role", "Trainer")
    assert refused.returncode == 1
    assert "needs iam:GetRole; give the role's ARN instead: --role arn:aws:iam::ACCOUNT:role/Trainer" in refused.stderr
    assert "s3:" not in refused.stderr
