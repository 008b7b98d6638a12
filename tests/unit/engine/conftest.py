"""A small artifact with random weights, and its graph."""

from pathlib import Path

import pytest

from classifier.engine.base import EngineChoice
from support.servers import export_artifact, write_artifact


@pytest.fixture(scope="session")
def artifact_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact without a graph; read only."""
    return write_artifact(tmp_path_factory.mktemp("artifact") / "model")


@pytest.fixture(scope="session")
def exported_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with its graph, served in fp32; read only."""
    folder = export_artifact(write_artifact(tmp_path_factory.mktemp("exported") / "model"))
    EngineChoice(bf16=False, int8=False).write(folder)
    return folder
