"""Server settings from environment variables."""

import pytest

from classifier.contract.hyperparameters import describe_bounds
from classifier.errors import ConfigError
from classifier.serving.settings import ServerSettings


def test_variables_of_the_platform_are_read() -> None:
    environment = {
        "SAGEMAKER_BIND_TO_PORT": "8123",
        "SAGEMAKER_MULTI_MODEL": "true",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv",
        "SERVE_PAGE": "1",
        "SERVE_MAX_BODY_MB": "",
        "OTHER": "x",
    }
    settings = ServerSettings.from_environment(environment)
    assert (settings.port, settings.multi_model, settings.default_accept, settings.page) == (
        8123,
        True,
        "text/csv",
        True,
    )
    assert settings.max_body == 25 * 1024 * 1024
    assert ServerSettings.from_environment({}).port == 8080


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_BIND_TO_PORT", "99999"),
        ("SERVE_MAX_BODY_MB", "0"),
        ("SERVE_MAX_REQUESTS", "-1"),
        ("SERVE_MAX_BUFFERED_MB", "inf"),
        ("SERVE_REQUEST_TIMEOUT_S", "nan"),
        ("SERVE_LOG_LEVEL", "debug"),
        ("SERVE_LOG_SAMPLE", "1.5"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/html"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "*/*"),
    ],
)
def test_error_names_the_invalid_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerSettings.from_environment({name: value})


def test_every_setting_is_documented_and_bounded() -> None:
    for name, field in ServerSettings.model_fields.items():
        assert (field.alias or "").startswith(("SERVE_", "SAGEMAKER_")), name
        assert (field.description or "").endswith("."), name
        if field.annotation in (int, float):
            bounds = describe_bounds(field)
            assert bounds.count("≤") + bounds.count("<") == 2, f"{name}: {bounds!r}"


def test_limits_are_available_in_bytes() -> None:
    settings = ServerSettings(max_decoded_mb=1.5, max_header_kb=8, max_body_mb=2, max_buffered_mb=1)
    assert settings.max_decoded == 3 * 512 * 1024
    assert settings.max_header == 8192
    assert settings.max_buffered == settings.max_body == 2 * 1024 * 1024
