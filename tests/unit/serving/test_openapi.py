"""The description of the API: valid, complete, and true of real responses."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from classifier import serve
from classifier.serving.app import STATUS, create_app, create_multi_model_app
from classifier.serving.asgi import Admission
from classifier.serving.model_manager import ModelManager
from classifier.serving.predictor import Predictor
from classifier.serving.settings import RESPONSE_TYPES, ServerSettings
from classifier.serving.telemetry import Telemetry
from support.servers import drawn_photos


@pytest.fixture(scope="module")
def single(predictor: Predictor, settings: ServerSettings) -> Flask:
    return create_app(predictor, settings.model_copy(update={"page": True}), Telemetry(), Admission())


@pytest.fixture(scope="module")
def several(artifact_folder: Path, settings: ServerSettings) -> Flask:
    manager = ModelManager(artifact_folder.parent, lambda _, folder: Predictor.open(folder, settings), lambda: 1 << 40)
    return create_multi_model_app(manager, settings, Telemetry(), Admission())


def described(app: Flask) -> dict[str, Any]:
    return app.test_client().get("/openapi.json").get_json()


def test_description_needs_no_model(
    single: Flask, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ServerSettings, "from_environment", lambda: settings.model_copy(update={"page": True}))
    assert serve.main(["--openapi"]) == 0
    printed, served = json.loads(capsys.readouterr().out), described(single)
    assert printed["info"].pop("description") == "One model."
    served["info"].pop("description")
    assert printed == served


def test_documents_are_valid(single: Flask, several: Flask) -> None:
    from openapi_spec_validator import validate  # noqa: PLC0415 - takes half a second, in every worker

    for app in (single, several):
        validate(described(app))


def test_every_route_is_described_and_no_other(single: Flask, several: Flask) -> None:
    for app in (single, several):
        routes = {
            (rule.rule.replace("<path:name>", "{name}"), method.lower())
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
        paths = described(app)["paths"]
        assert routes == {(path, name) for path, item in paths.items() for name in item if name != "parameters"}


def test_every_error_is_described_with_its_status(single: Flask, several: Flask) -> None:
    found = {
        (name, status)
        for app in (single, several)
        for item in described(app)["paths"].values()
        for operation in item.values()
        if isinstance(operation, dict)
        for status, response in operation["responses"].items()
        for name in (kind.__name__ for kind in STATUS)
        if f"{name}: " in response["description"]
    }
    bases = {"UnavailableError"}  # only its subclasses are raised
    assert found == {(kind.__name__, str(status)) for kind, status in STATUS.items() if kind.__name__ not in bases}


def test_media_types_and_limits_are_the_servers(single: Flask, settings: ServerSettings) -> None:
    operation = described(single)["paths"]["/invocations"]["post"]
    assert tuple(operation["responses"]["200"]["content"]) == RESPONSE_TYPES
    body = operation["requestBody"]
    assert f"{settings.max_body:,} bytes" in body["description"]
    client = single.test_client()
    for kind in body["content"]:
        concrete = "image/jpeg" if kind == "image/*" else kind
        assert client.post("/invocations", data=b"", content_type=concrete).status_code in (400, 422), kind
    batch = body["content"]["application/json"]["schema"]["oneOf"][1]
    assert batch["properties"]["instances"]["maxItems"] == settings.max_instances


def test_real_requests_and_responses_match_the_schemas(single: Flask) -> None:
    client, document = single.test_client(), described(single)
    photo = {"image": base64.b64encode(drawn_photos(1)[0]).decode()}
    operation = document["paths"]["/invocations"]["post"]
    request_schema = operation["requestBody"]["content"]["application/json"]["schema"]
    response_schema = json_schema(operation["responses"]["200"])
    for body in (photo, {"instances": [photo, photo]}, {"instances": [photo, {"image": ""}]}):
        check(body, request_schema, document)
        for accept in ("application/json", "application/json;verbose"):
            response = client.post("/invocations", json=body, headers={"Accept": accept})
            assert response.status_code == 200
            check(response.get_json(), response_schema, document)
    failed = client.post("/invocations", json={})
    check(failed.get_json(), json_schema(operation["responses"][str(failed.status_code)]), document)
    for path in ("/ready", "/execution-parameters"):
        response = document["paths"][path]["get"]["responses"]["200"]
        check(client.get(path).get_json(), json_schema(response), document)


def test_models_match_the_schemas(several: Flask, artifact_folder: Path) -> None:
    client, document = several.test_client(), described(several)
    body = {"model_name": "a", "url": str(artifact_folder)}
    check(body, {"$ref": "#/components/schemas/LoadRequest"}, document)
    check(client.post("/models", json=body).get_json(), {"$ref": "#/components/schemas/Model"}, document)
    check(client.get("/models").get_json(), {"$ref": "#/components/schemas/Models"}, document)
    check(client.delete("/models/a").get_json(), {"$ref": "#/components/schemas/Model"}, document)


def json_schema(response: dict[str, Any]) -> dict[str, Any]:
    return response["content"]["application/json"]["schema"]


def check(value: object, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Validate against a schema whose references point into the document; unknown properties are errors."""
    import jsonschema  # noqa: PLC0415 - slow, as above

    closed = json.loads(json.dumps(document["components"]))
    for one in closed["schemas"].values():
        one["additionalProperties"] = False
    jsonschema.Draft202012Validator({**schema, "components": closed}).validate(value)


def test_page_links_the_description(single: Flask) -> None:
    assert 'href="openapi.json"' in single.test_client().get("/").text
