"""What an operator may set, by environment variables, read once at the start."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from classifier.errors import ConfigError

Form = Literal["application/json", "application/jsonlines", "text/csv", "application/x-npy"]
FORMS: tuple[Form, ...] = ("application/json", "application/jsonlines", "text/csv", "application/x-npy")
MIB = 1024 * 1024


def _writable(accept: str) -> str:
    if accept.partition(";")[0].strip() not in FORMS:
        raise ValueError(f"should be one of {', '.join(FORMS)}")
    return accept


class Settings(BaseModel):
    """Limits and ports. Each field is the environment variable that its alias names; the rest is the platform's own."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    port: Annotated[int, Field(alias="SAGEMAKER_BIND_TO_PORT", ge=1, le=65535)] = 8080
    default_accept: Annotated[str, Field(alias="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"), AfterValidator(_writable)] = (
        "application/json"
    )
    multi_model: Annotated[bool, Field(alias="SAGEMAKER_MULTI_MODEL")] = False
    page: Annotated[bool, Field(alias="SERVE_PAGE")] = False
    metrics_port: Annotated[int, Field(alias="SERVE_METRICS_PORT", ge=0, le=65535)] = 9090

    max_body_mb: Annotated[float, Field(alias="SERVE_MAX_BODY_MB", gt=0, le=2048)] = 25
    max_image_mb: Annotated[float, Field(alias="SERVE_MAX_IMAGE_MB", gt=0, le=2048)] = 25
    max_megapixels: Annotated[float, Field(alias="SERVE_MAX_MEGAPIXELS", gt=0, le=1000)] = 50
    max_instances: Annotated[int, Field(alias="SERVE_MAX_INSTANCES", ge=1, le=4096)] = 64
    max_requests: Annotated[int, Field(alias="SERVE_MAX_REQUESTS", ge=1, le=1024)] = 64
    max_buffered_mb: Annotated[float, Field(alias="SERVE_MAX_BUFFERED_MB", gt=0)] = 256
    request_timeout_s: Annotated[float, Field(alias="SERVE_REQUEST_TIMEOUT_S", gt=0)] = 50
    receive_timeout_s: Annotated[float, Field(alias="SERVE_RECEIVE_TIMEOUT_S", gt=0)] = 30

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """
        Raises:
            ConfigError: a variable holds what it can't; the message names it.
        """
        source = os.environ if environment is None else environment
        names = [field.alias for field in cls.model_fields.values() if field.alias]
        try:
            return cls.model_validate({name: source[name] for name in names if source.get(name)})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from None

    @property
    def max_body(self) -> int:
        return round(self.max_body_mb * MIB)

    @property
    def max_image(self) -> int:
        return round(self.max_image_mb * MIB)

    @property
    def max_pixels(self) -> int:
        return round(self.max_megapixels * 1e6)

    @property
    def max_buffered(self) -> int:
        return max(round(self.max_buffered_mb * MIB), self.max_body)
