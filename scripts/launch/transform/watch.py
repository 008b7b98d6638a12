"""Batch transform jobs: start, stop, follow to the end."""

from collections.abc import Mapping
from typing import Any

from aws.errors import translate_errors
from launch.platform.clients import Platform
from launch.platform.creation import CreatedResources
from launch.platform.logs import TRANSFORM_JOBS, JobMonitor, LogTail
from launch.platform.polling import follow_job
from launch.platform.prices import describe_instances
from launch.terminal import command, print_status


def start(platform: Platform, requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Create the model unless it exists, and the job.

    Args:
        requests: by operation, as returned by :func:`launch.transform.options.transform_requests`.

    Raises:
        CloudError: AWS refused a request; a model that was created for the job was deleted.
    """
    created, job = CreatedResources(platform.sagemaker), requests["CreateTransformJob"]
    try:
        created.ensure("model", requests["CreateModel"])
        with translate_errors(f"transform job {job['TransformJobName']}"):
            platform.sagemaker.create_transform_job(**job)
    except Exception:
        created.rollback()
        raise


def stop(platform: Platform, name: str) -> None:
    """Stop a job.

    Raises:
        CloudError: there is no such job, or it has ended.
    """
    with translate_errors(f"transform job {name}"):
        platform.sagemaker.stop_transform_job(TransformJobName=name)
    print_status(f"batch_transform: stopping {name}")


def watch(platform: Platform, request: Mapping[str, Any], *, local: bool) -> int:
    """Follow a job to its end.

    Args:
        request: the CreateTransformJob request.
        local: whether the job runs on this machine, where nothing is billed.

    Returns:
        The exit code: 0 if the job completed or was stopped, 1 if it failed, 130 after Ctrl-C.

    Raises:
        CloudError: AWS refused a request or can't be reached; how to stop the running job is printed.
    """
    name = request["TransformJobName"]

    def print_detached(_: Mapping[str, Any]) -> None:
        resources = request["TransformResources"]
        cost = "this machine" if local else describe_instances(resources["InstanceType"], resources["InstanceCount"])
        print_status(f"batch_transform: stopped watching; the job keeps running: {cost}")
        print_status(f"  stop it: {command('batch_transform', '--stop', name)}{platform.flags}")

    tail = LogTail(platform.logs, TRANSFORM_JOBS, f"{name}/")
    record = follow_job(
        lambda: platform.sagemaker.describe_transform_job(TransformJobName=name),
        JobMonitor(tail, lambda line: print(line, flush=True), status_key="TransformJobStatus"),
        name=name,
        kind="transform",
        interval_s=platform.interval_s,
        on_detach=print_detached,
    )
    if record is None:
        return 130
    if record["TransformJobStatus"] == "Failed":
        print_status(f"batch_transform: {name} failed: {record.get('FailureReason', 'no reason was given')}")
        return 1
    print(f"output      {record['TransformOutput']['S3OutputPath']}")
    return 0
