"""Asynchronous endpoints without instances: the policy and the alarm that start one, created, kept and removed."""

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from launch.endpoint.request import ScalingSpec, policy_request, wake_alarm_request, wake_policy_request
from support.account import IMAGE, ROLE, Account
from support.cloud_script import Updates

if TYPE_CHECKING:
    from support.cloud_script import Cloud

DENIED = "AccessDeniedException"
OPTIONS = ("--asynchronous", "s3://bucket/answers", "--max-instances", "4")
ZERO = (*OPTIONS, "--min-instances", "0")


@pytest.fixture
def account(moto_url: str, cloud: "Cloud", request: pytest.FixtureRequest) -> Iterator[Account]:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    services = ("sagemaker", "application-autoscaling", "cloudwatch")
    clients = [boto3.client(one, endpoint_url=moto_url, **keys) for one in services]  # pyright: ignore[reportCallIssue, reportArgumentType]
    account = Account(f"cats-{abs(hash(request.node.nodeid)) % 10**8}", cloud, *clients)
    yield account
    account.check_live(is_updated=False)
    for one in account.sagemaker.list_endpoints(MaxResults=100)["Endpoints"]:
        account.sagemaker.delete_endpoint(EndpointName=one["EndpointName"])
    for one in clients:
        one.close()


@pytest.fixture
def deploy(shell: Any, account: Account, bucket: str) -> Any:
    """Deploy an artifact to the endpoint under test."""
    shell.client("s3").put_object(Bucket=bucket, Key="job/model.tar.gz", Body=b"one")

    def run(*more: str) -> Any:
        options = ("--name", account.name, "--role", ROLE, "--image", IMAGE, *more)
        return shell.run("deploy", f"s3://{bucket}/job/model.tar.gz", *options, LAUNCH_POLL_S="0.005")

    return run


@pytest.fixture
def sleeping(account: Account) -> Account:
    """An asynchronous endpoint that these commands have created, and that a request wakes."""
    config, name = f"{account.name}-old", account.name
    account.add_endpoint(name, config, asynchronous="s3://bucket/answers")
    target = account.target()
    account.scaling.register_scalable_target(**target, MinCapacity=0, MaxCapacity=4)
    spec = ScalingSpec(endpoint=name, min_instances=0, max_instances=4, asynchronous=True)
    account.scaling.put_scaling_policy(**policy_request(spec))
    arn = account.scaling.put_scaling_policy(**wake_policy_request(spec))["PolicyARN"]
    account.cloudwatch.put_metric_alarm(**{**wake_alarm_request(spec), "AlarmActions": [arn]})
    Updates(account.cloud)
    return account


def wake_policy(account: Account) -> dict[str, Any] | None:
    """Return the policy, which on AWS goes with the registration."""
    resource = account.target()["ResourceId"]
    found = account.scaling.describe_scaling_policies(ServiceNamespace="sagemaker", ResourceId=resource)
    policies = found["ScalingPolicies"] if account.limits() else []
    return next((one for one in policies if one["PolicyName"] == f"{account.name}-wake"), None)


def test_endpoint_without_instances_is_woken_by_one_request(deploy: Any, account: Account) -> None:
    account.cloud.refuse("PutMetricAlarm", DENIED, times=1)
    refused = deploy(*ZERO)
    account.check_live()
    assert refused.returncode == 1
    assert f"deploy: alarm {account.name}-wake: access is denied" in refused.stderr
    assert re.search(
        rf"endpoint {account.name} is in service; finish its settings with .*deploy\.py s3://\S+ --name {account.name} "
        r".*--min-instances 0",
        refused.stderr,
    )
    assert account.has("endpoint", account.name)
    # That command creates the alarm, although it finds the policy in place.
    done = deploy(*ZERO)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^it costs 1 × ml\.m5\.large: .*; nothing while it has scaled to none", done.stderr, re.MULTILINE)
    assert account.limits() == (0, 4)
    policy, alarm = wake_policy(account), account.alarm()
    assert policy is not None
    assert alarm is not None
    assert alarm["AlarmActions"] == [policy["PolicyARN"]]
    assert (alarm["MetricName"], alarm["Threshold"]) == ("HasBacklogWithoutCapacity", 1)
    # Once more, and nothing changes.
    num_sent = len(account.cloud.bodies("PutScalingPolicy"))
    assert deploy(*ZERO).returncode == 0
    assert len(account.cloud.bodies("PutScalingPolicy")) == num_sent
    assert len(account.cloud.bodies("PutMetricAlarm")) == 2


def test_dry_run_names_the_policy_and_the_alarm(deploy: Any, account: Account) -> None:
    requests = json.loads(deploy(*ZERO, "--dry-run").stdout)
    assert [one["PolicyName"] for one in requests["PutScalingPolicy"]][1] == f"{account.name}-wake"
    assert requests["PutMetricAlarm"]["AlarmName"] == f"{account.name}-wake"
    assert account.cloud.changes() == []


@pytest.mark.parametrize("options", [OPTIONS, OPTIONS[:2]])
def test_update_that_drops_it_removes_the_policy_and_the_alarm(
    deploy: Any, sleeping: Account, options: tuple[str, ...]
) -> None:
    done = deploy(*options)
    sleeping.check_live()
    assert done.returncode == 0, done.stderr
    assert sleeping.limits() == ((1, 4) if options == OPTIONS else None)
    assert (wake_policy(sleeping), sleeping.alarm()) == (None, None)


@pytest.mark.parametrize("options", [ZERO, OPTIONS[:2]])
def test_change_of_the_instance_type_leaves_no_alarm_without_its_policy(
    deploy: Any, sleeping: Account, options: tuple[str, ...]
) -> None:
    """The registration is removed for the update, and its policies with it."""
    before = wake_policy(sleeping)
    assert before is not None
    done = deploy(*options, "--instance", "ml.m5.xlarge")
    assert done.returncode == 0, done.stderr
    policy, alarm = wake_policy(sleeping), sleeping.alarm()
    if options == ZERO:
        assert policy is not None
        assert alarm is not None
        assert alarm["AlarmActions"] == [policy["PolicyARN"]] != [before["PolicyARN"]]
    else:
        assert (policy, alarm) == (None, None)


def test_refused_update_keeps_the_alarm_with_its_policy(deploy: Any, sleeping: Account) -> None:
    sleeping.cloud.refuse("UpdateEndpoint", DENIED)
    assert deploy("--instance", "ml.m5.xlarge").returncode == 1
    sleeping.check_live(is_updated=False)
    policy, alarm = wake_policy(sleeping), sleeping.alarm()
    assert policy is not None
    assert alarm is not None
    assert alarm["AlarmActions"] == [policy["PolicyARN"]]


@pytest.mark.parametrize("is_refused", [False, True])
def test_teardown_removes_the_alarm_or_says_how(shell: Any, sleeping: Account, is_refused: bool) -> None:
    if is_refused:
        sleeping.cloud.refuse("DeleteAlarms", DENIED)
    done = shell.run("teardown", "--name", sleeping.name, "--yes")
    assert done.returncode == int(is_refused), done.stderr
    remedy = f"remove it with aws cloudwatch delete-alarms --alarm-names {sleeping.name}-wake"
    assert (remedy in done.stderr) == (sleeping.alarm() is not None) == is_refused
    assert not sleeping.has("endpoint", sleeping.name)
    assert sleeping.limits() is None


def test_endpoint_without_an_alarm_needs_no_permission_for_one(shell: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.add_scaling("policy")
    account.cloud.refuse("DeleteAlarms", DENIED)
    assert shell.run("teardown", "--name", account.name, "--yes").returncode == 0
