"""Server settings, read from environment variables once at startup."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from classifier.errors import ConfigError

ResponseType = Literal["application/json", "application/jsonlines", "text/csv", "application/x-npy"]
RESPONSE_TYPES: tuple[ResponseType, ...] = (
    "application/json",
    "application/jsonlines",
    "text/csv",
    "application/x-npy",
)
MIB = 1024 * 1024


def _check_response_type(accept: str) -> str:
    if accept.partition(";")[0].strip() not in RESPONSE_TYPES:
        raise ValueError(f"should be one of {', '.join(RESPONSE_TYPES)}")
    return accept


class ServerSettings(BaseModel):
    """Ports and limits. The alias of a field is its environment variable: the platform's own, or ``SERVE_…``."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    port: Annotated[int, Field(alias="SAGEMAKER_BIND_TO_PORT", ge=1, le=65535)] = 8080
    default_accept: Annotated[
        str, Field(alias="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"), AfterValidator(_check_response_type)
    ] = "application/json"
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
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ServerSettings":
        """Read and validate the settings; an empty variable counts as unset.

        Raises:
            ConfigError: a variable is invalid; the message names it.
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
        """Largest request body, in bytes."""
        return round(self.max_body_mb * MIB)

    @property
    def max_image(self) -> int:
        """Largest encoded image, in bytes."""
        return round(self.max_image_mb * MIB)

    @property
    def max_pixels(self) -> int:
        """Largest number of pixels in an image."""
        return round(self.max_megapixels * 1e6)

    @property
    def max_buffered(self) -> int:
        """Bytes of all bodies in memory at once; at least one body fits."""
        return max(round(self.max_buffered_mb * MIB), self.max_body)
