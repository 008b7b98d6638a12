"""A small model with random weights, its predictor, and a test client of its application."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from classifier.serving import log
from classifier.serving.app import create_app
from classifier.serving.asgi import Admission
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry
from support.servers import export_artifact, write_artifact


@pytest.fixture(scope="session")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with its graph, served in fp32; read only."""
    return export_artifact(write_artifact(tmp_path_factory.mktemp("artifact") / "model"), only_fp32=True)


@pytest.fixture(scope="session")
def settings() -> ServerSettings:
    return ServerSettings(max_instances=8, max_body_mb=2, max_image_mb=0.5, max_decoded_mb=12)


@pytest.fixture(scope="session")
def predictor(artifact_folder: Path, settings: ServerSettings) -> Iterator[Predictor]:
    predictor = Predictor.open(artifact_folder, settings)
    yield predictor
    predictor.close()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call() -> Iterator[None]:
    """Write what a test has logged while its output is captured, instead of during the next test."""
    try:
        yield
    finally:
        log.flush()


@pytest.fixture
def client(predictor: Predictor, settings: ServerSettings) -> FlaskClient:
    return create_app(predictor, settings, Telemetry(), Admission()).test_client()
