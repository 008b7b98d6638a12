"""Commands that AWS refuses, or that are interrupted, halfway: nothing that a live endpoint references is deleted.

After each fault :meth:`Account.check_live` describes what all endpoints of the account reference.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from launch.platform.references import find_references
from support.account import IMAGE, OURS, ROLE, Account
from support.cloud_script import Updates

if TYPE_CHECKING:
    from support.cloud_script import Cloud

EXPIRED = "ExpiredTokenException"
DENIED = "AccessDeniedException"
ROLLED_BACK = {"FailureReason": "alarm errors"}


@pytest.fixture
def account(moto_url: str, cloud: "Cloud", request: pytest.FixtureRequest) -> Iterator[Account]:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    clients = [boto3.client(one, endpoint_url=moto_url, **keys) for one in ("sagemaker", "application-autoscaling")]  # pyright: ignore[reportCallIssue, reportArgumentType]
    name = f"cats-{abs(hash(request.node.nodeid)) % 10**8}"
    account = Account(name, cloud, *clients)
    yield account
    account.check_live(is_updated=False)
    for one in account.sagemaker.list_endpoints(MaxResults=100)["Endpoints"]:
        account.sagemaker.delete_endpoint(EndpointName=one["EndpointName"])
    for one in clients:
        one.close()


@pytest.fixture
def artifact(shell: Any, bucket: str) -> str:
    shell.client("s3").put_object(Bucket=bucket, Key="job/model.tar.gz", Body=b"one")
    return f"s3://{bucket}/job/model.tar.gz"


@pytest.fixture
def deploy(shell: Any, account: Account, artifact: str) -> Any:
    """Deploy the artifact to the endpoint under test."""

    def run(*more: str, **environment: str) -> Any:
        options = ("--name", account.name, "--role", ROLE, "--image", IMAGE, *more)
        return shell.run("deploy", artifact, *options, **{"LAUNCH_POLL_S": "0.005", **environment})

    return run


def test_refused_scaling_of_an_update_is_reported_with_the_command_that_retries_it(
    deploy: Any, account: Account
) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    Updates(account.cloud)
    account.cloud.refuse("RegisterScalableTarget", DENIED)
    done = deploy("--max-instances", "4")
    account.check_live()
    assert done.returncode == 1
    assert f"deploy: scaling of {account.name}: access is denied" in done.stderr
    assert re.search(
        rf"endpoint {account.name} is in service; finish its settings with .*deploy\.py s3://\S+ --name {account.name} "
        r".*--max-instances 4",
        done.stderr,
    )
    # Two instances of the former config are retained.
    assert "2 × ml.m5.large: $0.23 an hour" in done.stderr
    assert account.has_all(f"{account.name}-old")
    assert account.has("endpoint_config", account.created())


def test_refused_scaling_of_a_new_endpoint_deletes_nothing(deploy: Any, account: Account) -> None:
    account.cloud.refuse("PutScalingPolicy", DENIED)
    done = deploy("--max-instances", "4")
    account.check_live()
    assert done.returncode == 1
    assert f"endpoint {account.name} is in service; finish its settings with" in done.stderr
    assert f"remove it with .venv/bin/python scripts/teardown.py --name {account.name}" in done.stderr
    assert account.has("endpoint", account.name)


@pytest.mark.parametrize("error", [EXPIRED, "InternalFailure"])
def test_errors_during_an_update_leave_it_alone(deploy: Any, account: Account, error: str) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    Updates(account.cloud)
    account.cloud.when("UpdateEndpoint", lambda: account.cloud.refuse("DescribeEndpoint", error))
    done = deploy(AWS_MAX_ATTEMPTS="1")
    account.check_live()
    assert done.returncode == 1
    assert f"the update of endpoint {account.name} was accepted, and it was InService when last seen" in done.stderr
    assert "2 × ml.m5.large: $0.23 an hour" in done.stderr
    assert not account.cloud.bodies("DeleteEndpointConfig")
    assert not account.cloud.bodies("DeleteModel")


def test_update_that_no_description_shows_is_not_undone(deploy: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    Updates(account.cloud, {}, num_polls=0)
    done = deploy()
    account.check_live()
    assert done.returncode == 1
    assert "nothing was deleted" in done.stderr
    assert f"the update of endpoint {account.name} was accepted" in done.stderr


def test_credentials_that_expire_during_creation_leave_a_message_about_what_exists(
    deploy: Any, account: Account
) -> None:
    account.cloud.when("CreateEndpoint", lambda: account.cloud.refuse("DescribeEndpoint", EXPIRED))
    done = deploy()
    account.check_live()
    assert done.returncode == 1
    assert f"deploy: endpoint {account.name}: the credentials have expired" in done.stderr
    assert f"the creation of endpoint {account.name} was accepted; follow it with" in done.stderr
    assert "1 × ml.m5.large: $0.115 an hour" in done.stderr, done.stderr
    assert f"remove it with .venv/bin/python scripts/teardown.py --name {account.name}" in done.stderr
    assert account.has("endpoint", account.name)


@pytest.mark.parametrize("operation", ["CreateEndpoint", "CreateEndpointConfig"])
def test_refused_creation_leaves_nothing_behind(deploy: Any, account: Account, operation: str) -> None:
    account.cloud.refuse(operation, "ResourceLimitExceeded", "no instances")
    done = deploy()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no instances; request an increase on" in done.stderr
    assert not account.has("endpoint_config", account.created())
    assert not account.has("model", account.created("Model"))


def test_resources_that_cannot_be_deleted_again_are_listed(deploy: Any, account: Account) -> None:
    for operation in ("CreateEndpoint", "ListEndpoints"):
        account.cloud.refuse(operation, EXPIRED)
    done = deploy()
    assert done.returncode == 1
    model, config = account.created("Model"), account.created()
    for kind, name in (("model", model), ("config", config)):
        remove = f"remove it with .venv/bin/python scripts/teardown.py --name {name}\n"
        assert f"deploy: {kind} {name} is left, at no cost; {remove}" in done.stderr
    assert "accepted" not in done.stderr
    assert account.has_all(config) is False
    assert account.has("model", model)
    assert account.has("endpoint_config", config)


def test_creation_whose_answer_was_lost_is_followed(deploy: Any, account: Account) -> None:
    """botocore repeats a request whose answer is lost; the repetition is refused, since the endpoint exists."""
    message = f"Cannot create already existing endpoint {account.name}"

    def lose(_: dict[str, Any]) -> dict[str, Any]:
        account.cloud.refuse("CreateEndpoint", "ValidationException", message)
        raise ConnectionError

    account.cloud.change("CreateEndpoint", lose)
    done = deploy()
    account.check_live()
    assert done.returncode == 0, done.stderr
    assert len(account.cloud.bodies("CreateEndpoint")) == 2


def test_failed_update_keeps_what_another_endpoint_uses(deploy: Any, account: Account) -> None:
    """A config is named after its contents, so another endpoint may come to use it while the update runs."""
    account.add_endpoint(account.name, f"{account.name}-old")

    def share(record: dict[str, Any]) -> dict[str, Any]:
        other = f"{account.name}-other"
        if account.cloud.bodies("UpdateEndpoint") and not account.has("endpoint", other):
            account.sagemaker.create_endpoint(EndpointName=other, EndpointConfigName=account.created())
        return {**record, **(ROLLED_BACK if account.cloud.bodies("UpdateEndpoint") else {})}

    account.cloud.answer("UpdateEndpoint", {"EndpointArn": "arn"})
    account.cloud.change("DescribeEndpoint", share, always=True)
    done = deploy()
    account.check_live()
    assert done.returncode == 1
    assert "failed: alarm errors; the previous model is still being served" in done.stderr


@pytest.mark.slow
def test_ctrl_c_before_the_creation_says_that_nothing_was_deployed(shell: Any, account: Account, artifact: str) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.cloud.change("DescribeEndpoint", lambda one: {**one, "EndpointStatus": "Updating"}, always=True)
    options = ("--name", account.name, "--role", ROLE, "--image", IMAGE)
    code, errors = shell.interrupt("deploy", "endpoint", artifact, *options)
    account.check_live()
    assert (code, errors) == (130, "deploy: stopped; nothing was deployed\n")
    assert not account.cloud.bodies("CreateModel")


def test_endpoint_of_another_program_is_taken_over_only_on_request(deploy: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old", tags=[])
    Updates(account.cloud)
    refused = deploy()
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert f"endpoint {account.name} exists and was not created by deploy.py" in refused.stderr
    assert not account.cloud.bodies("CreateModel")
    taken = deploy("--take-over")
    account.check_live()
    assert taken.returncode == 0, taken.stderr
    assert account.cloud.bodies("UpdateEndpoint")[0]["EndpointName"] == account.name
    arn = account.sagemaker.describe_endpoint(EndpointName=account.name)["EndpointArn"]
    assert account.sagemaker.list_tags(ResourceArn=arn)["Tags"] == OURS


def test_new_count_and_capture_replace_those_of_the_endpoint(deploy: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    Updates(account.cloud)
    assert deploy("--instances", "3", "--capture", "s3://bucket/captured").returncode == 0
    sent = account.cloud.bodies("UpdateEndpoint")[0]
    replaced = {one["VariantPropertyType"] for one in sent["ExcludeRetainedVariantProperties"]}
    assert replaced == {"DesiredInstanceCount", "DataCaptureConfig"}
    assert account.cloud.bodies("CreateEndpointConfig")[0]["ProductionVariants"][0]["InitialInstanceCount"] == 3


def test_count_alone_is_changed_without_an_update(deploy: Any, account: Account) -> None:
    assert deploy("--instances", "3", "--max-instances", "4").returncode == 0
    variant = {"VariantName": "AllTraffic", "DesiredInstanceCount": 4}
    account.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=account.name, DesiredWeightsAndCapacities=[{**variant, "DesiredWeight": 1.0}]
    )
    done = deploy("--instances", "3")
    assert done.returncode == 0, done.stderr
    found = account.sagemaker.describe_endpoint(EndpointName=account.name)["ProductionVariants"][0]
    assert found["DesiredInstanceCount"] == 3
    assert account.limits() is None
    assert not account.cloud.bodies("UpdateEndpoint")


def test_instance_type_of_a_scaled_endpoint_is_changed_between_two_registrations(deploy: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.add_scaling(f"{account.name}-concurrency", "nightly")
    Updates(account.cloud)
    done = deploy("--instance", "ml.m5.xlarge", "--max-instances", "4")
    assert done.returncode == 0, done.stderr
    changes = ("DeregisterScalableTarget", "UpdateEndpoint", "RegisterScalableTarget")
    assert [name for name, _ in account.cloud.requests if name in changes] == list(changes)
    sent = {one["PolicyName"] for one in account.cloud.bodies("PutScalingPolicy")}
    assert sent == {f"{account.name}-concurrency", "nightly"}
    assert account.limits() == (1, 4)


def test_refused_update_of_a_scaled_endpoint_registers_it_again(deploy: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.add_scaling(f"{account.name}-concurrency")
    account.cloud.refuse("UpdateEndpoint", DENIED)
    done = deploy("--instance", "ml.m5.xlarge")
    account.check_live(is_updated=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert len(account.cloud.bodies("DeregisterScalableTarget")) == 1
    assert account.limits() == (1, 5)
    policies = account.cloud.bodies("PutScalingPolicy")
    assert [one["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] for one in policies] == [7.0]


def test_scaling_that_could_not_be_restored_is_printed(deploy: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.add_scaling(f"{account.name}-concurrency")
    account.cloud.refuse("UpdateEndpoint", DENIED)
    account.cloud.refuse("RegisterScalableTarget", DENIED)
    done = deploy("--instance", "ml.m5.xlarge")
    account.check_live(is_updated=False)
    assert done.returncode == 1
    assert "the endpoint no longer scales" in done.stderr
    assert done.stderr.count('"MaxCapacity": 5') == 1


@pytest.mark.parametrize("others", [[], ["nightly"]])
def test_dropped_max_instances_removes_our_policy_and_no_other(
    deploy: Any, account: Account, others: list[str]
) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.add_scaling(f"{account.name}-concurrency", *others)
    Updates(account.cloud)
    assert deploy().returncode == 0
    if others:
        assert account.policies() == {"nightly"}
        assert account.limits() == (1, 5)
    else:
        assert account.limits() is None


def teardown(shell: Any, name: str) -> Any:
    return shell.run("teardown", "--name", name, "--yes")


def test_endpoint_that_is_not_deleted_keeps_its_config_its_model_and_its_scaling(shell: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.add_scaling("policy")
    account.cloud.refuse("DeleteEndpoint", DENIED)
    done = teardown(shell, account.name)
    account.check_live()
    assert done.returncode == 1
    assert f"teardown: endpoint {account.name}: access is denied" in done.stderr
    for kind in ("config", "model"):
        assert f"teardown: kept {kind} {account.name}-old: endpoint {account.name} uses it" in done.stderr
    assert account.limits() == (1, 5)


def test_refused_deregistration_does_not_keep_an_endpoint(shell: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.cloud.refuse("DeregisterScalableTarget", DENIED)
    done = teardown(shell, account.name)
    assert done.returncode == 1
    assert "aws application-autoscaling deregister-scalable-target --service-namespace sagemaker" in done.stderr
    assert f"removed   endpoint {account.name}" in done.stdout
    assert not account.has("endpoint", account.name)
    assert not account.has("model", f"{account.name}-old")


def test_endpoint_that_somebody_else_has_deleted_counts_as_removed(shell: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.cloud.when("DeleteEndpoint", lambda: account.sagemaker.delete_endpoint(EndpointName=account.name))
    account.cloud.refuse("DeleteEndpoint", "ValidationException", f'Could not find endpoint "arn:…/{account.name}".')
    done = teardown(shell, account.name)
    assert (done.returncode, done.stderr) == (0, "")
    assert not account.has("endpoint_config", f"{account.name}-old")
    assert not account.has("model", f"{account.name}-old")


def test_endpoints_that_cannot_be_described_after_the_deletion_keep_configs_and_models(
    shell: Any, account: Account
) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")

    def last(answer: dict[str, Any]) -> dict[str, Any]:
        account.cloud.refuse("ListEndpoints", EXPIRED)
        return answer

    account.cloud.change("DeleteEndpoint", last)
    account.cloud.change("ListEndpointConfigs", last)
    done = teardown(shell, account.name)
    account.check_live()
    assert done.returncode == 1
    assert "the credentials have expired" in done.stderr
    assert "configs and models were kept, as endpoints or jobs may use them" in done.stderr
    assert account.has_all(f"{account.name}-old")


def test_name_selects_one_endpoint_and_what_it_references(shell: Any, account: Account) -> None:
    name = account.name
    # The digest in another endpoint's config begins with the name of this one.
    account.add_endpoint(name, f"{name}-6")
    account.add_endpoint(f"{name}-6", "config-of-6-" + name)
    account.add_endpoint(f"{name}-64", f"{name}-634e550ce8db")
    done = teardown(shell, f"{name}-6")
    account.check_live()
    assert done.returncode == 0, done.stderr
    assert not account.has("endpoint", f"{name}-6")
    assert not account.has_all("config-of-6-" + name)
    assert account.has("endpoint", name)
    assert account.has("endpoint", f"{name}-64")
    config = teardown(shell, f"{name}-634e550ce8db")
    account.check_live()
    assert f"kept config {name}-634e550ce8db: endpoint {name}-64 uses it" in config.stderr


def test_name_selects_what_earlier_deployments_have_left(shell: Any, account: Account) -> None:
    name = account.name
    earlier, present, other = f"{name}-0123456789ab", f"{name}-ba9876543210", f"{name}-6-0123456789ab"
    for config in (earlier, other):
        account.add_endpoint(name, config)
        account.sagemaker.delete_endpoint(EndpointName=name)
    account.add_endpoint(name, present)
    done = teardown(shell, name)
    assert done.returncode == 0, done.stderr
    assert [account.has_all(one) for one in (earlier, present, other)] == [False, False, True]


def test_trailing_star_selects_a_beginning_and_spares_what_other_endpoints_use(shell: Any, account: Account) -> None:
    name = account.name
    account.add_endpoint(f"{name}-a", f"{name}-a")
    account.add_endpoint(f"{name}-b", f"{name}-b")
    # Not ours, but it uses a config of ours; and one that is being updated to another.
    account.sagemaker.create_endpoint(EndpointName=f"other-{name}", EndpointConfigName=f"{name}-a")
    account.add_endpoint(f"updated-{name}", f"updated-{name}", tags=[])
    summary = {"EndpointConfigName": f"{name}-b"}

    def update(record: dict[str, Any]) -> dict[str, Any]:
        is_updated = record["EndpointName"] == f"updated-{name}"
        return {**record, **({"PendingDeploymentSummary": summary} if is_updated else {})}

    account.cloud.change("DescribeEndpoint", update, always=True)
    done = teardown(shell, f"{name}-*")
    account.check_live()
    assert done.returncode == 0, done.stderr
    assert not account.has("endpoint", f"{name}-a")
    assert not account.has("endpoint", f"{name}-b")
    assert account.has_all(f"{name}-a")
    assert account.has_all(f"{name}-b")


def test_model_of_a_running_transform_job_is_kept(shell: Any, account: Account) -> None:
    model, job = f"{account.name}-old", f"{account.name}-job"
    account.add_endpoint(account.name, model)
    # Somebody else's: it is not ours to stop.
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:transform-job/{job}"
    summary = {"TransformJobName": job, "TransformJobArn": arn, "CreationTime": 1e9, "TransformJobStatus": "InProgress"}
    account.cloud.answer("ListTransformJobs", {"TransformJobSummaries": [summary]})
    account.cloud.answer("DescribeTransformJob", {**summary, "ModelName": model})
    done = teardown(shell, account.name)
    assert done.returncode == 0, done.stderr
    assert f"kept model {model}: transform {job} uses it" in done.stderr
    assert not account.has("endpoint", account.name)
    assert not account.has("endpoint_config", model)
    assert account.has("model", model)


def test_models_of_inference_components_are_referenced(shell: Any, account: Account) -> None:
    account.add_endpoint(account.name, f"{account.name}-old")
    account.cloud.change("DescribeEndpointConfig", lambda config: {**config, "ProductionVariants": [{}]})
    component = {"InferenceComponentName": "one"}
    account.cloud.answer("ListInferenceComponents", {"InferenceComponents": [component]})
    account.cloud.answer("DescribeInferenceComponent", {**component, "Specification": {"ModelName": "shared"}})
    references = find_references(shell.client("sagemaker"))
    assert references.user_of("model", "shared") == f"endpoint {account.name}"


def test_refused_transform_job_leaves_no_model(shell: Any, account: Account, artifact: str) -> None:
    account.cloud.refuse("CreateTransformJob", "ResourceLimitExceeded")
    options = ("--output", "s3://bucket/answers", "--role", ROLE, "--image", IMAGE, "--name", account.name)
    done = shell.run("batch_transform", artifact, "s3://bucket/photos/", *options)
    assert done.returncode == 1
    assert not account.has("model", account.created("Model"))
