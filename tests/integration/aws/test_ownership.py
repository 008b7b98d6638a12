"""Whose resources teardown.py lists: by the tags that the commands set, and AWS's tagging API, which is scripted."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.cloud_script import Cloud

ROLE = "arn:aws:iam::123456789012:role/SageMaker"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier@sha256:0"
OURS = {"Key": "project", "Value": "image-classifier"}
LONG_AGO = 1.7e9


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"owned-{abs(hash(request.node.nodeid))}"


def add_model(shell: Any, name: str, **tags: str) -> str:
    """Create a model with tags, and return its ARN."""
    container = {"Image": IMAGE, "ModelDataUrl": "s3://b/m.tar.gz"}
    given = [OURS, *({"Key": key, "Value": value} for key, value in tags.items())]
    sagemaker = shell.client("sagemaker")
    return sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container, Tags=given)[
        "ModelArn"
    ]


def listed(shell: Any, name: str, *arguments: str) -> list[str]:
    """Return the names that a dry run lists of those that begin with ``name``."""
    done = shell.run("teardown", "--name", f"{name}*", "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("model ")]


def test_owners_are_told_apart_and_the_default_owner_is_who_calls(shell: Any, name: str) -> None:
    add_model(shell, f"{name}-mine", owner="moto")
    add_model(shell, f"{name}-hers", owner="ann")
    add_model(shell, f"{name}-old")
    assert listed(shell, name) == [f"{name}-{one}" for one in ("mine", "hers", "old")]
    assert listed(shell, name, "--owner") == [f"{name}-mine"]
    assert listed(shell, name, "--owner", "ann") == [f"{name}-hers"]
    nobody = shell.run("teardown", "--name", name, "--owner", "bob", "--yes")
    assert nobody.stdout == f"nothing named {name} owned by bob is left\n"
    refused = shell.run("teardown", "--local", "--owner")
    assert (refused.returncode, refused.stderr) == (
        1,
        "teardown: --owner is for AWS: resources on this machine have no owner\n",
    )


def age(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "Models": [{**one, "CreationTime": LONG_AGO} for one in answer["Models"]]}


def test_settled_resources_are_found_by_the_tagging_api_alone(shell: Any, cloud: "Cloud", name: str) -> None:
    found = add_model(shell, f"{name}-a", owner="ann")
    add_model(shell, f"{name}-b", owner="bob")
    cloud.change("ListModels", age, always=True)
    cloud.answer("GetResources", {"ResourceTagMappingList": [{"ResourceARN": found}], "PaginationToken": ""})
    assert listed(shell, name, "--owner", "ann") == [f"{name}-a"]
    (request,) = cloud.bodies("GetResources")
    assert request["ResourceTypeFilters"] == ["sagemaker"]
    assert request["TagFilters"] == [
        {"Key": "project", "Values": ["image-classifier"]},
        {"Key": "owner", "Values": ["ann"]},
    ]
    asked = {one["ResourceArn"] for one in cloud.bodies("ListTags")}
    assert not {one for one in asked if f"model/{name}" in one}


def test_each_resource_is_asked_where_the_tagging_api_is_refused(shell: Any, cloud: "Cloud", name: str) -> None:
    for owner in ("ann", "bob"):
        add_model(shell, f"{name}-{owner}", owner=owner)
    cloud.change("ListModels", age, always=True)
    cloud.refuse("GetResources", "AccessDeniedException")
    assert listed(shell, name, "--owner", "ann") == [f"{name}-ann"]
    assert listed(shell, name) == [f"{name}-ann", f"{name}-bob"]


def test_what_the_tagging_api_does_not_know_yet_is_asked(shell: Any, cloud: "Cloud", name: str) -> None:
    add_model(shell, f"{name}-new", owner="ann")
    cloud.answer("GetResources", {"ResourceTagMappingList": [], "PaginationToken": ""})
    assert listed(shell, name, "--owner", "ann") == [f"{name}-new"]
    cloud.change("ListModels", age, always=True)
    assert listed(shell, name, "--owner", "ann") == []
