"""API errors of the local client, raised as botocore's so that commands handle both clients alike; why jobs fail."""

import errno
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def api_error(code: str, message: str, operation: str = "local") -> ClientError:
    """Return the error that botocore raises for an error response."""
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def in_use(message: str) -> ClientError:
    """Return the error for a name that is taken or a resource that another one refers to."""
    return api_error("ResourceInUse", message)


def not_found(message: str) -> ClientError:
    """Return the error for a missing resource, which SageMaker reports as a ValidationException."""
    return api_error("ValidationException", message)


def invalid(message: str) -> ClientError:
    """Return the error for a request that cannot be carried out."""
    return api_error("ValidationException", message)


def is_disk_full(error: Exception) -> bool:
    """Whether a file could not be written for lack of space."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


def failure_reason(error: Exception, folder: Path) -> str:
    """Return the ``FailureReason`` of a job that an unexpected error has ended.

    Args:
        folder: the job's.
    """
    if isinstance(error, OSError) and is_disk_full(error):
        return (
            f"ClientError: {error.filename or folder}: {error.strerror}; free space on this disk and start the job "
            f"again; what it has written is in {folder}"
        )
    return f"InternalServerError: {error!r}"


def check_request(operation: str, request: dict[str, Any]) -> None:
    """Check a request as AWS does, with ``file://`` allowed wherever it takes ``s3://``.

    Raises:
        ParamValidationError: botocore would not send this request.
        ClientError: SageMaker would refuse it.
    """
    # A supervisor, which checks no request, does without.
    from botocore.validate import ParamValidator  # noqa: PLC0415

    from aws.request_check import faults, input_shape  # noqa: PLC0415

    report = ParamValidator().validate(request, input_shape(operation))
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())
    for fault in faults(operation, request, local=True):
        raise invalid(fault.for_caller())
