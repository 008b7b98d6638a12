"""What docs/aws.md says about the code: policies with exactly the actions that the commands call, and their costs."""

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name

from aws.request_check import service_model
from launch.endpoint.options import DEFAULT_INSTANCE as ENDPOINT_INSTANCE
from launch.platform.prices import _HOURLY, Rate, describe_limit, describe_standing
from launch.platform.resources import KINDS, PROJECT, PROJECT_KEY
from launch.training.request import DEFAULT_RESOURCES
from launch.transform import DEFAULT_INSTANCE as TRANSFORM_INSTANCE
from support.readme import ROOT

TEXT = (ROOT / "docs" / "aws.md").read_text(encoding="utf-8")
SCRIPTS = ROOT / "scripts"
# IAM's names of services, where they differ from botocore's.
PREFIXES = {"sagemaker-runtime": "sagemaker", "service-quotas": "servicequotas", "resourcegroupstaggingapi": "tag"}
# S3's operations, boto3's transfers included, need actions of other names.
S3_ACTIONS = {
    "head_bucket": {"ListBucket"},
    "list_objects_v2": {"ListBucket"},
    "head_object": {"GetObject"},
    "get_object": {"GetObject"},
    "download_file": {"GetObject"},
    "put_object": {"PutObject"},
    "upload_file": {"PutObject", "AbortMultipartUpload"},
    "upload_fileobj": {"PutObject", "AbortMultipartUpload"},
    "copy_object": {"GetObject", "PutObject"},
    "delete_objects": {"DeleteObject"},
    "delete_object": {"DeleteObject"},
}
# Names that are operations, too, but not of these calls: a regular expression's, and a method of this project.
NO_CALLS = {("sagemaker", "search"), ("sagemaker", "create_trial")}
# Needed without being called: by SageMaker's and the registry's services on the caller's behalf, and by `docker push`.
INDIRECT = {
    "iam:PassRole",
    "iam:CreateServiceLinkedRole",
    "ecr:TagResource",
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
}
FREE = {"sts:GetCallerIdentity"}  # always allowed


def policy(name: str) -> list[dict[str, Any]]:
    """Return the statements of a policy in the document."""
    found = re.search(rf"<!-- {name} -->\n```json\n(.*?)\n```", TEXT, re.DOTALL)
    assert found is not None
    return json.loads(found[1])["Statement"]


def actions(statements: list[dict[str, Any]]) -> list[str]:
    return [one for statement in statements for one in as_list(statement["Action"])]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def sources() -> Iterator[ast.AST]:
    """Yield the syntax trees of the scripts, except those of the local twin, which has AWS's methods but calls none."""
    for path in SCRIPTS.rglob("*.py"):
        if "local" not in path.relative_to(SCRIPTS).parts[:-1]:
            yield ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def called() -> frozenset[str]:
    """Return IAM's names of the operations that the scripts can call."""
    trees = list(sources())
    nodes = [node for tree in trees for node in ast.walk(tree)]
    # Attributes, and the names that are passed to paginators and helpers.
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names |= {f"{verb}_{operation}" for verb in ("create", "describe", "delete") for operation, _ in KINDS.values()}
    return frozenset(action for one in services(nodes) for action in service_actions(one, names)) - FREE


def services(nodes: list[ast.AST]) -> set[str]:
    """Return the services of which the scripts create clients."""
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args]
    first = [node.args[0] for node in calls if isinstance(node.func, ast.Name) and node.func.id == "client"]
    return {one.value for one in first if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def service_actions(service: str, names: set[str]) -> set[str]:
    if service == "s3":
        return {f"s3:{action}" for name in names & set(S3_ACTIONS) for action in S3_ACTIONS[name]}
    model: Any = service_model(service)
    operations = {xform_name(one): one for one in model.operation_names}
    prefix = PREFIXES.get(service, service)
    return {f"{prefix}:{operations[name]}" for name in names & set(operations) if (service, name) not in NO_CALLS}


def test_scan_finds_calls_of_every_kind() -> None:
    found = called()
    for action in (
        "sagemaker:CreateTrainingJob",  # a method
        "sagemaker:ListTrainingJobsForHyperParameterTuningJob",  # a paginator
        "sagemaker:ListModels",  # a name passed to a helper
        "sagemaker:DeleteEndpointConfig",  # composed of a verb and a kind
        "sagemaker:InvokeEndpoint",  # another client
        "s3:PutObject",  # a transfer
        "servicequotas:ListServiceQuotas",
    ):
        assert action in found


def test_users_policy_allows_exactly_what_the_commands_call() -> None:
    documented = set(actions(policy("user")))
    assert called() - documented == set(), "add these to docs/aws.md"
    assert documented - called() == INDIRECT, "remove these from docs/aws.md"


def test_no_action_is_documented_twice_or_with_a_wildcard() -> None:
    for name in ("user", "role"):
        listed = actions(policy(name))
        assert len(listed) == len(set(listed))
        assert [one for one in listed if "*" in one] == []


def test_policies_are_limited_to_resources_where_iam_can() -> None:
    for statement in policy("user"):
        verbs = {one.partition(":")[2] for one in as_list(statement["Action"])}
        if {one for one in verbs if one.startswith(("Delete", "Stop", "Update"))} & {
            one.partition(":")[2] for one in called() if one.startswith("sagemaker:")
        }:
            tag = {f"aws:ResourceTag/{PROJECT_KEY}": PROJECT}
            assert statement["Condition"] == {"StringEquals": tag}
        if statement["Resource"] == "*" and "Condition" not in statement:
            assert {one for one in verbs if not one.startswith(("List", "Describe", "Get"))} == set()
    (trust,) = policy("trust")
    assert trust["Principal"] == {"Service": "sagemaker.amazonaws.com"}


@pytest.mark.parametrize(
    ("command", "instance", "describe"),
    [
        (
            "tune.py --jobs 20",
            DEFAULT_RESOURCES.instance_type,
            lambda rate: describe_limit(rate, DEFAULT_RESOURCES.max_run_s, jobs=20),
        ),
        (
            "train.py",
            DEFAULT_RESOURCES.instance_type,
            lambda rate: describe_limit(rate, DEFAULT_RESOURCES.max_run_s),
        ),
        ("deploy.py", ENDPOINT_INSTANCE, lambda rate: describe_standing(rate).partition(": ")[2]),
        ("batch_transform.py", TRANSFORM_INSTANCE, lambda rate: str(rate).partition(", ")[2]),
    ],
)
def test_costs_are_those_that_the_commands_print(command: str, instance: str, describe: Any) -> None:
    rate = Rate(instance_type=instance, num_instances=1, dollars=_HOURLY[instance], source="")
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{command}` |"))
    assert describe(rate).partition(" (")[0] in row


def test_every_command_that_creates_something_has_a_row() -> None:
    table = re.search(r"<!-- costs -->\n(.*)\n<!-- /costs -->", TEXT, re.DOTALL)
    assert table is not None
    for path in SCRIPTS.glob("*.py"):
        if "add_resource(parser)" in path.read_text(encoding="utf-8"):
            assert f"| `{path.name}" in table[1]


def test_linked_options_exist() -> None:
    options = set(re.findall(r"`(?:\w+\.py )?(--[a-z-]+)", TEXT))
    defined = "".join(path.read_text(encoding="utf-8") for path in (*SCRIPTS.glob("*.py"), SCRIPTS / "launch/cli.py"))
    assert {one for one in options if f'"{one}"' not in defined} == set()
    assert Path(ROOT / "scripts" / "check_aws.py").is_file()
