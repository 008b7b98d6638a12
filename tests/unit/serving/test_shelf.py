"""Several models behind one endpoint: the platform's API, on real models."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from classifier.serving.app import create_multi_model_app
from classifier.serving.model_manager import Shelf, available_memory
from classifier.serving.predictor import Predictor
from classifier.serving.settings import Settings
from classifier.serving.telemetry import Telemetry
from support.servers import drawn_photos


class Memory:
    """What is free: as much as the test says, less each model that was loaded."""

    def __init__(self) -> None:
        self.free = 1 << 40


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def models(tmp_path: Path, artifact_folder: Path) -> Path:
    """Three model folders, as the platform puts them down, and one that holds no model."""
    for name in ("first", "second", "third"):
        shutil.copytree(artifact_folder, tmp_path / "models" / name / "model")
    (tmp_path / "models" / "empty" / "model").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def shelf(models: Path, settings: Settings, memory: Memory) -> Iterator[Shelf]:
    shelf = Shelf(models, lambda folder: Predictor.open(folder, settings), lambda: memory.free)
    yield shelf
    for one in shelf.all():
        shelf.unload(one.name)


@pytest.fixture
def client(shelf: Shelf, settings: Settings) -> FlaskClient:
    return create_multi_model_app(shelf, settings, Telemetry()).test_client()


def load(client: FlaskClient, name: str, url: Path) -> tuple[int, dict[str, str]]:
    body = json.dumps({"model_name": name, "url": str(url)})
    response = client.post("/models", data=body, content_type="application/json")
    return response.status_code, response.get_json()


def names(client: FlaskClient) -> list[str]:
    return [one["modelName"] for one in client.get("/models").get_json()["models"]]


def test_a_loaded_model_answers(client: FlaskClient, models: Path) -> None:
    url = models / "first" / "model"
    assert load(client, "a/b c", url) == (200, {"modelName": "a/b c", "modelUrl": str(url)})
    assert client.get("/models/a/b c").get_json() == {"modelName": "a/b c", "modelUrl": str(url)}
    response = client.post("/models/a/b c/invoke", data=drawn_photos(1)[0], content_type="image/jpeg")
    assert response.status_code == 200
    assert "predicted_label" in response.get_json()
    assert client.get("/ping").status_code == 200
    assert client.delete("/models/a/b c").status_code == 200
    assert names(client) == []


def test_a_server_without_models_is_well(client: FlaskClient) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/models").get_json() == {"models": []}


def test_a_model_is_loaded_once(client: FlaskClient, models: Path) -> None:
    load(client, "first", models / "first" / "model")
    assert load(client, "first", models / "first" / "model")[0] == 409


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/invoke")])
def test_a_model_that_is_not_loaded_is_not_found(client: FlaskClient, method: str, path: str) -> None:
    response = client.open(f"/models/first{path}", method=method)
    assert (response.status_code, response.get_json()["error"]["type"]) == (404, "UnknownModelError")


@pytest.mark.parametrize("url", ["/", "/etc", "first/../../..", "../models-of-others"])
def test_only_the_models_folder_is_read(client: FlaskClient, models: Path, url: str) -> None:
    assert load(client, "evil", models / url)[0] == 400


def test_a_link_does_not_lead_out_of_the_models_folder(
    client: FlaskClient, models: Path, artifact_folder: Path
) -> None:
    (models / "link").symlink_to(artifact_folder)
    assert load(client, "evil", models / "link")[0] == 400


def test_a_folder_without_a_model_is_refused(client: FlaskClient, models: Path) -> None:
    status, document = load(client, "empty", models / "empty" / "model")
    assert status == 400
    assert "holds no model.json" in json.dumps(document)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"model_name": "a"}', b'{"model_name": 1, "url": "/"}'])
def test_a_malformed_request_to_load_is_refused(client: FlaskClient, body: bytes) -> None:
    assert client.post("/models", data=body, content_type="application/json").status_code == 400


def test_the_least_recently_used_model_makes_room(
    client: FlaskClient, models: Path, shelf: Shelf, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        load(client, name, models / name / "model")
    client.get("/models/first")
    memory.free = 0
    unload = shelf.unload

    def freeing(name: str) -> object:
        memory.free = 1 << 40
        return unload(name)

    monkeypatch.setattr(shelf, "unload", freeing)
    assert load(client, "third", models / "third" / "model")[0] == 200
    assert names(client) == ["first", "third"]


def test_a_model_that_fits_in_no_way_is_refused(client: FlaskClient, models: Path, memory: Memory) -> None:
    load(client, "first", models / "first" / "model")
    memory.free = 1000
    status, document = load(client, "second", models / "second" / "model")
    assert status == 507
    assert "OutOfMemoryError" in json.dumps(document)


def test_long_lists_come_in_pages(
    client: FlaskClient, models: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.serving.app.MODELS_A_PAGE", 2)
    for name in ("first", "second", "third"):
        shelf.load(name, str(models / name / "model"))
    page = client.get("/models").get_json()
    assert ([one["modelName"] for one in page["models"]], page["nextPageToken"]) == (["first", "second"], "second")
    rest = client.get("/models", query_string={"next_page_token": page["nextPageToken"]}).get_json()
    assert [one["modelName"] for one in rest["models"]] == ["third"]
    assert "nextPageToken" not in rest


def test_this_machines_memory_is_known() -> None:
    assert available_memory() > 0
