"""The multi-model API of the platform, on real models."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from classifier.serving.app import create_multi_model_app
from classifier.serving.model_manager import ModelManager, available_memory
from classifier.serving.predictor import Predictor
from classifier.serving.settings import ServerSettings
from classifier.serving.telemetry import Telemetry
from support.servers import drawn_photos


class Memory:
    """The free memory in bytes, as a test sets it."""

    def __init__(self) -> None:
        self.free = 1 << 40


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def models(tmp_path: Path, artifact_folder: Path) -> Path:
    """Three model folders in the platform's layout, and one without a model."""
    for name in ("first", "second", "third"):
        shutil.copytree(artifact_folder, tmp_path / "models" / name / "model")
    (tmp_path / "models" / "empty" / "model").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def manager(models: Path, settings: ServerSettings, memory: Memory) -> Iterator[ModelManager]:
    manager = ModelManager(models, lambda _, folder: Predictor.open(folder, settings), lambda: memory.free)
    yield manager
    for one in manager.all():
        manager.unload(one.name)


@pytest.fixture
def client(manager: ModelManager, settings: ServerSettings) -> FlaskClient:
    return create_multi_model_app(manager, settings, Telemetry()).test_client()


def load(client: FlaskClient, name: str, url: Path) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"model_name": name, "url": str(url)})
    response = client.post("/models", data=body, content_type="application/json")
    return response.status_code, response.get_json()


def names(client: FlaskClient) -> list[str]:
    return [one["modelName"] for one in client.get("/models").get_json()["models"]]


def test_loaded_model_answers(client: FlaskClient, models: Path) -> None:
    url = models / "first" / "model"
    assert load(client, "a/b c", url) == (200, {"modelName": "a/b c", "modelUrl": str(url)})
    assert client.get("/models/a/b c").get_json() == {"modelName": "a/b c", "modelUrl": str(url)}
    response = client.post("/models/a/b c/invoke", data=drawn_photos(1)[0], content_type="image/jpeg")
    assert response.status_code == 200
    assert "predicted_label" in response.get_json()
    assert client.get("/ping").status_code == 200
    assert client.delete("/models/a/b c").status_code == 200
    assert names(client) == []


def test_server_without_models_is_healthy(client: FlaskClient) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/models").get_json() == {"models": []}


def test_name_can_be_loaded_only_once(client: FlaskClient, models: Path) -> None:
    load(client, "first", models / "first" / "model")
    assert load(client, "first", models / "first" / "model")[0] == 409


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/invoke")])
def test_unknown_model_is_not_found(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(f"/models/first{path}", method=method)
    assert (response.status_code, response.get_json()["error"]["type"]) == (404, "UnknownModelError")


@pytest.mark.parametrize("url", ["/", "/etc", "first/../../..", "../models-of-others"])
def test_folder_outside_the_root_is_rejected(client: FlaskClient, models: Path, url: str) -> None:
    assert load(client, "evil", models / url)[0] == 400


def test_link_out_of_the_root_is_rejected(client: FlaskClient, models: Path, artifact_folder: Path) -> None:
    (models / "link").symlink_to(artifact_folder)
    assert load(client, "evil", models / "link")[0] == 400


def test_folder_without_a_model_is_rejected(client: FlaskClient, models: Path) -> None:
    status, document = load(client, "empty", models / "empty" / "model")
    assert status == 400
    assert (document["error"]["type"], "model.json" in document["error"]["message"]) == ("ArtifactError", True)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"model_name": "a"}', b'{"model_name": 1, "url": "/"}'])
def test_malformed_load_request_is_rejected(client: FlaskClient, body: bytes) -> None:
    assert client.post("/models", data=body, content_type="application/json").status_code == 400


def test_least_recently_used_model_is_evicted(
    client: FlaskClient, models: Path, manager: ModelManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        load(client, name, models / name / "model")
    client.get("/models/first")
    memory.free = 0
    unload = manager.unload

    def freeing(name: str) -> object:
        memory.free = 1 << 40
        return unload(name)

    monkeypatch.setattr(manager, "unload", freeing)
    assert load(client, "third", models / "third" / "model")[0] == 200
    assert names(client) == ["first", "third"]


def test_model_that_can_not_fit_is_rejected(client: FlaskClient, models: Path, memory: Memory) -> None:
    load(client, "first", models / "first" / "model")
    memory.free = 1000
    status, document = load(client, "second", models / "second" / "model")
    assert status == 507
    assert "OutOfMemoryError" in json.dumps(document)


def test_long_lists_are_paginated(
    client: FlaskClient, models: Path, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.serving.app.MODELS_PER_PAGE", 2)
    for name in ("first", "second", "third"):
        manager.load(name, str(models / name / "model"))
    page = client.get("/models").get_json()
    assert ([one["modelName"] for one in page["models"]], page["nextPageToken"]) == (["first", "second"], "second")
    rest = client.get("/models", query_string={"next_page_token": page["nextPageToken"]}).get_json()
    assert [one["modelName"] for one in rest["models"]] == ["third"]
    assert "nextPageToken" not in rest


def test_free_memory_of_this_machine_is_positive() -> None:
    assert available_memory() > 0
