"""API errors of the local client, raised as botocore's so that commands handle both clients alike."""

from functools import cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ParamValidationError

if TYPE_CHECKING:
    from botocore.model import ServiceModel


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


def check_request(operation: str, request: dict[str, Any]) -> None:
    """Validate a request against botocore's model of the SageMaker API.

    Raises:
        ParamValidationError: botocore would not send this request.
    """
    from botocore.validate import ParamValidator  # noqa: PLC0415 - a supervisor, which checks no request, does without

    shape = _sagemaker().operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())


@cache
def _sagemaker() -> "ServiceModel":
    from botocore.loaders import Loader  # noqa: PLC0415
    from botocore.model import ServiceModel  # noqa: PLC0415

    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
