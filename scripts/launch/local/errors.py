"""The API's refusals, as botocore raises them, so that a command needs not know whom it spoke to."""

from functools import cache
from typing import Any

from botocore.exceptions import ClientError, ParamValidationError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator


def refuse(code: str, message: str, operation: str = "local") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def in_use(message: str) -> ClientError:
    return refuse("ResourceInUse", message)


def not_found(message: str) -> ClientError:
    return refuse("ValidationException", message)


def invalid(message: str) -> ClientError:
    return refuse("ValidationException", message)


def check(operation: str, request: dict[str, Any]) -> None:
    """
    Raises:
        ParamValidationError: botocore would not send this request.
    """
    shape = _sagemaker().operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())


@cache
def _sagemaker() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
