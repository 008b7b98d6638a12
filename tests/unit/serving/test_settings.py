"""Server settings from environment variables."""

import pytest

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
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/html"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "*/*"),
    ],
)
def test_error_names_the_invalid_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ServerSettings.from_environment({name: value})
