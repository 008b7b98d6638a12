"""A small trained model, and what serves it, in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from classifier.engine.base import EngineChoice
from classifier.serving.app import create_app
from classifier.serving.predictor import Predictor
from classifier.serving.settings import Settings
from classifier.serving.telemetry import Telemetry
from support.servers import export_artifact, write_artifact


@pytest.fixture(scope="session")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with its graph, served in fp32."""
    folder = export_artifact(write_artifact(tmp_path_factory.mktemp("artifact") / "model"))
    EngineChoice(bf16=False, int8=False).write(folder)
    return folder


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(max_instances=8, max_body_mb=2, max_image_mb=0.5, max_megapixels=4)


@pytest.fixture(scope="session")
def predictor(artifact_folder: Path, settings: Settings) -> Iterator[Predictor]:
    predictor = Predictor.open(artifact_folder, settings)
    yield predictor
    predictor.close()


@pytest.fixture
def client(predictor: Predictor, settings: Settings) -> FlaskClient:
    return create_app(predictor, settings, Telemetry()).test_client()
