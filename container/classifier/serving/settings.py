"""Server settings, read from environment variables once at startup."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from classifier.contract.hyperparameters import describe_bounds
from classifier.errors import ConfigError

ResponseType = Literal["application/json", "application/jsonlines", "text/csv", "application/x-npy"]
RESPONSE_TYPES: tuple[ResponseType, ...] = (
    "application/json",
    "application/jsonlines",
    "text/csv",
    "application/x-npy",
)
LogLevel = Literal["info", "warning", "error"]
MIB = 1024 * 1024


def _check_response_type(accept: str) -> str:
    if accept.partition(";")[0].strip() not in RESPONSE_TYPES:
        raise ValueError(f"should be one of {', '.join(RESPONSE_TYPES)}")
    return accept


class ServerSettings(BaseModel):
    """Address, limits and logging. The alias of a field is its environment variable: the platform's or ``SERVE_…``."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    port: Annotated[int, Field(alias="SAGEMAKER_BIND_TO_PORT", ge=1, le=65535, description="Port of the server.")] = (
        8080
    )
    host: Annotated[
        str, Field(alias="SERVE_HOST", description="Address on which the server listens; `0.0.0.0` for all.")
    ] = "0.0.0.0"
    default_accept: Annotated[
        str,
        Field(
            alias="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
            description="Media type of responses to requests that accept any; `;verbose` adds all classes.",
        ),
        AfterValidator(_check_response_type),
    ] = "application/json"
    multi_model: Annotated[
        bool,
        Field(alias="SAGEMAKER_MULTI_MODEL", description="Serve several models by the platform's multi-model API."),
    ] = False
    page: Annotated[bool, Field(alias="SERVE_PAGE", description="Serve a page at `/` to try the model on.")] = False

    max_body_mb: Annotated[
        float, Field(alias="SERVE_MAX_BODY_MB", gt=0, le=2048, description="Largest request body, in MiB.")
    ] = 25
    max_image_mb: Annotated[
        float, Field(alias="SERVE_MAX_IMAGE_MB", gt=0, le=2048, description="Largest encoded photo, in MiB.")
    ] = 25
    max_decoded_mb: Annotated[
        float,
        Field(
            alias="SERVE_MAX_DECODED_MB",
            gt=0,
            le=65536,
            description="Memory to decode one photo, in MiB, by its header: width × height × 4 to 16 bytes.",
        ),
    ] = 200
    max_instances: Annotated[
        int,
        Field(alias="SERVE_MAX_INSTANCES", ge=1, le=4096, description="Most photos in a JSON document or an array."),
    ] = 64
    max_requests: Annotated[
        int,
        Field(
            alias="SERVE_MAX_REQUESTS",
            ge=1,
            le=1024,
            description="Most requests in progress at once; further ones get 503.",
        ),
    ] = 64
    max_buffered_mb: Annotated[
        float,
        Field(
            alias="SERVE_MAX_BUFFERED_MB",
            gt=0,
            le=1048576,
            description="Memory for request bodies and headers in all, in MiB; at least one body fits.",
        ),
    ] = 256
    max_connections: Annotated[
        int,
        Field(
            alias="SERVE_MAX_CONNECTIONS",
            ge=16,
            le=1000000,
            description="Most open connections; above it, those without a request are closed first.",
        ),
    ] = 2000
    max_header_kb: Annotated[
        int,
        Field(alias="SERVE_MAX_HEADER_KB", ge=1, le=1024, description="Largest request line and headers, in KiB."),
    ] = 32

    request_timeout_s: Annotated[
        float,
        Field(
            alias="SERVE_REQUEST_TIMEOUT_S", gt=0, le=3600, description="Time to answer a complete request, in seconds."
        ),
    ] = 50
    header_timeout_s: Annotated[
        float,
        Field(alias="SERVE_HEADER_TIMEOUT_S", gt=0, le=3600, description="Time for a request's headers, in seconds."),
    ] = 30
    receive_timeout_s: Annotated[
        float,
        Field(
            alias="SERVE_RECEIVE_TIMEOUT_S",
            gt=0,
            le=3600,
            description="Longest pause while a body arrives, in seconds.",
        ),
    ] = 30
    min_upload_kb_s: Annotated[
        float,
        Field(
            alias="SERVE_MIN_UPLOAD_KB_S",
            ge=0,
            le=1000000,
            description="Slowest average rate of a body in KiB/s, after the first 5 s; 0 disables.",
        ),
    ] = 16
    keep_alive_s: Annotated[
        float,
        Field(
            alias="SERVE_KEEP_ALIVE_S",
            ge=0,
            le=3600,
            description="Time until an idle connection is closed, in seconds.",
        ),
    ] = 75
    drain_s: Annotated[
        float,
        Field(
            alias="SERVE_DRAIN_S",
            ge=0,
            le=600,
            description="Time after SIGTERM to answer the requests that were accepted, in seconds.",
        ),
    ] = 20
    ready_after_s: Annotated[
        float,
        Field(
            alias="SERVE_READY_AFTER_S",
            ge=0,
            le=3600,
            description="Time of saturation after which `/ready` returns 503, in seconds.",
        ),
    ] = 3

    metrics_port: Annotated[
        int,
        Field(alias="SERVE_METRICS_PORT", ge=0, le=65535, description="Port of the Prometheus metrics; 0 disables."),
    ] = 9090
    metrics_host: Annotated[
        str,
        Field(alias="SERVE_METRICS_HOST", description="Address on which the metrics are served; `0.0.0.0` for all."),
    ] = "127.0.0.1"
    log_level: Annotated[
        LogLevel,
        Field(
            alias="SERVE_LOG_LEVEL",
            description="`info` logs every request except successful pings, `warning` only rejected and failed ones, "
            "`error` only failed ones.",
        ),
    ] = "info"
    log_sample: Annotated[
        float,
        Field(alias="SERVE_LOG_SAMPLE", ge=0, le=1, description="Share of the successful requests that are logged."),
    ] = 1

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
    def max_decoded(self) -> int:
        """Memory to decode one image, in bytes."""
        return round(self.max_decoded_mb * MIB)

    @property
    def max_header(self) -> int:
        """Largest request line and headers, in bytes."""
        return self.max_header_kb * 1024

    @property
    def min_upload(self) -> float:
        """Slowest average rate of a body, in bytes per second."""
        return self.min_upload_kb_s * 1024

    @property
    def max_buffered(self) -> int:
        """Bytes of all bodies in memory at once; at least one body fits."""
        return max(round(self.max_buffered_mb * MIB), self.max_body)


def describe() -> str:
    """Return the table of the environment variables as Markdown, as the README includes it."""
    rows = [("variable", "values", "default", "description")]
    rows += [_describe_field(field) for field in ServerSettings.model_fields.values()]
    header, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, "|---" * len(rows[0]) + "|", *body])


def _describe_field(field: FieldInfo) -> tuple[str, ...]:
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{field.alias}`", _describe_values(field), f"`{default}`", field.description or ""


def _describe_values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    return describe_bounds(field) or ("a media type" if field.alias and field.alias.endswith("ACCEPT") else "a host")
