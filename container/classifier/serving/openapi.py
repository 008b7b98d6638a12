"""The description of the server's API, OpenAPI 3.1, from the tables by which the server itself works."""

from collections.abc import Mapping
from typing import Any

import classifier
from classifier.errors import ArtifactError, ImageError, MediaTypeError
from classifier.serving import codec
from classifier.serving.errors import (
    AcceptError,
    BusyError,
    DeadlineError,
    ModelExistsError,
    NotReadyError,
    OutOfMemoryError,
    ProtocolError,
    RequestError,
    TooLargeError,
    TooSlowError,
    UnknownModelError,
)
from classifier.serving.settings import RESPONSE_TYPES, ServerSettings
from classifier.vision.manifest import ModelManifest

Document = dict[str, Any]
# The HTTP status of each type of error; the first match counts.
Statuses = Mapping[type[Exception], int]

# Errors of any request with a body: it is invalid, too large, arrives too slowly, or finds no room.
_BODY_ERRORS = (RequestError, TooLargeError, TooSlowError, BusyError)
_PREDICT_ERRORS = (*_BODY_ERRORS, MediaTypeError, ImageError, AcceptError, DeadlineError)
_BINARY: Document = {"type": "string", "format": "binary"}
_STRING: Document = {"type": "string"}
_NUMBERS: Document = {"type": "array", "items": {"type": "number"}}
_STRINGS: Document = {"type": "array", "items": _STRING}


def describe_model_api(
    settings: ServerSettings, statuses: Statuses, manifest: ModelManifest | None, top_k: int
) -> Document:
    """Return the document of a server of one model.

    Args:
        settings: limits and routes.
        statuses: the HTTP status of each type of error.
        manifest: the model's; None describes the server of any model.
        top_k: number of classes in a response unless the request says otherwise.
    """
    text = f"{manifest.architecture}, {len(manifest.classes)} classes." if manifest else "One model."
    paths = {"/invocations": {"post": _predict(settings, statuses, top_k)}}
    if settings.page:
        page = {"200": _response("The page.", {"text/html": {"schema": _STRING}})}
        paths["/"] = {"get": _operation("page", "A page to try the model on.", page)}
    return _document(text, paths)


def describe_multi_model_api(settings: ServerSettings, statuses: Statuses, top_k: int) -> Document:
    """Return the document of a server of several models, with the platform's API to load them; see the other one."""
    unknown = _errors((UnknownModelError,), statuses)
    model = {"200": _json_response("The model.", "Model")}
    load_errors = _errors((*_BODY_ERRORS, ArtifactError, ModelExistsError, OutOfMemoryError), statuses)
    load = _operation("load", "Load a model.", {**model, **load_errors})
    load["requestBody"] = {"required": True, "content": {codec.JSON: {"schema": _ref("LoadRequest")}}}
    models = _operation("models", "List the loaded models.", {"200": _json_response("A page of the list.", "Models")})
    models["parameters"] = [{"name": "next_page_token", "in": "query", "schema": _STRING}]
    name = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": _STRING}]}
    one = {
        "get": _operation("model", "Describe a loaded model.", {**model, **unknown}),
        "delete": _operation("unload", "Unload a model.", {**model, **unknown}),
    }
    predict = _predict(settings, statuses, top_k, (UnknownModelError,))
    paths = {
        "/models": {"get": models, "post": load},
        "/models/{name}": {**name, **one},
        "/models/{name}/invoke": {**name, "post": predict},
    }
    return _document("Several models.", paths)


def _document(text: str, paths: Document) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {"title": "Image classifier", "version": classifier.__version__, "description": text},
        "paths": {**paths, **_common_paths()},
        "components": {"schemas": _schemas()},
    }


def _common_paths() -> Document:
    ready = {"200": _json_response("It is.", "Ready"), "503": _error_response([NotReadyError])}
    execution = {"200": _json_response("The parameters.", "ExecutionParameters")}
    ping = {"200": {"description": "It does."}, "503": {"description": "It does not."}}
    own = {"200": _response("The document.", {codec.JSON: {"schema": {"type": "object"}}})}
    return {
        "/ping": {"get": _operation("ping", "Whether the model answers.", ping)},
        "/ready": {"get": _operation("ready", "Whether the server has room for requests.", ready)},
        "/execution-parameters": {"get": _operation("execution_parameters", "What a batch transform uses.", execution)},
        "/openapi.json": {"get": _operation("openapi", "This document.", own)},
    }


# Predictions


def _predict(
    settings: ServerSettings, statuses: Statuses, top_k: int, errors: tuple[type[Exception], ...] = ()
) -> Document:
    predictions = _response("The predictions.", _predictions())
    responses = {"200": predictions, **_errors((*_PREDICT_ERRORS, *errors), statuses)}
    operation = _operation("predict", "Classify photos.", responses)
    attributes = f"`top_k=N`: the number of classes to return, {top_k} by default. Other attributes are ignored."
    operation["parameters"] = [
        _header("X-Amzn-SageMaker-Custom-Attributes", attributes),
        _header("X-Amzn-SageMaker-Inference-Id", "Repeated in the log."),
    ]
    operation["requestBody"] = {
        "required": True,
        "description": f"At most {settings.max_body:,} bytes.",
        "content": _photos(settings),
    }
    return operation


def _photos(settings: ServerSettings) -> Document:
    photo = {"schema": {**_BINARY, "description": f"A photo of at most {settings.max_image:,} bytes."}}
    several = f"At most {settings.max_instances} photos."
    array = "uint8 pixels (N, H, W, 3), or a normalized float tensor (N, 3, S, S); N may be missing."
    instances = {"type": "array", "minItems": 1, "maxItems": settings.max_instances, "items": _ref("Photo")}
    batch = {"type": "object", "required": ["instances"], "properties": {"instances": instances}}
    return {
        **dict.fromkeys(("image/*", *codec.SNIFFED), photo),
        codec.JSON: {"schema": {"oneOf": [_ref("Photo"), batch], "description": several}},
        **{kind: {"schema": {**_STRING, "description": "A photo in JSON per line."}} for kind in codec.JSON_LINES},
        codec.NPY: {"schema": {**_BINARY, "description": f"{array} {several}"}},
    }


def _predictions() -> Document:
    predictions = {"type": "array", "items": {"anyOf": [_ref("Prediction"), _ref("Error")]}}
    several = {"type": "object", "required": ["predictions"], "properties": {"predictions": predictions}}
    schemas = {
        codec.JSON: {
            "oneOf": [_ref("Prediction"), several],
            "description": "One prediction for one photo, else a list; `;verbose` adds all classes.",
        },
        "application/jsonlines": {**_STRING, "description": "A prediction or an error in JSON per line."},
        "text/csv": {**_STRING, "description": "A line per photo: label, class name and probability of each class."},
        codec.NPY: {**_BINARY, "description": "The logits, float32 (N, num_classes)."},
    }
    return {kind: {"schema": schemas[kind]} for kind in RESPONSE_TYPES}


# Responses


def _operation(name: str, summary: str, responses: Document) -> Document:
    return {"operationId": name, "summary": summary, "responses": responses}


def _errors(kinds: tuple[type[Exception], ...], statuses: Statuses) -> Document:
    """The error responses, by status; of Gunicorn's parser, which has many, and of the server's bugs as well."""
    by_status: dict[str, list[type[Exception]]] = {}
    for kind in kinds:
        status = next(status for base, status in statuses.items() if issubclass(kind, base))
        by_status.setdefault(str(status), []).append(kind)
    responses = {status: _error_response(group) for status, group in sorted(by_status.items())}
    internal = _json_response("InternalError: A bug of the server.", "Error")
    return {**responses, "4XX": _error_response([ProtocolError]), "500": internal}


def _error_response(kinds: list[type[Exception]]) -> Document:
    return _json_response(" ".join(f"{kind.__name__}: {_first_line(kind)}" for kind in kinds), "Error")


def _first_line(kind: type[Exception]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _json_response(text: str, schema: str) -> Document:
    return _response(text, {codec.JSON: {"schema": _ref(schema)}})


def _response(text: str, content: Document) -> Document:
    return {"description": text, "content": content}


def _header(name: str, text: str) -> Document:
    return {"name": name, "in": "header", "description": text, "schema": _STRING}


# Schemas


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> Document:
    probability = {"type": "number", "minimum": 0, "maximum": 1, "description": "Calibrated; the logits are not."}
    place = {"label": _STRING, "class_name": _STRING, "probability": probability}
    best = {"predicted_label" if name == "label" else name: schema for name, schema in place.items()}
    ranked = {"type": "array", "items": _object(place), "description": "The most probable classes."}
    verbose = {"labels": _STRINGS, "class_names": _STRINGS, "probabilities": _NUMBERS, "logits": _NUMBERS}
    prediction = _object({**best, "predictions": ranked})
    prediction["properties"] |= verbose
    image = {**_STRING, "contentEncoding": "base64", "description": "A photo; a data URL is accepted, too."}
    integer = {"type": "integer", "minimum": 1}
    models = {"type": "array", "items": _ref("Model")}
    return {
        "Photo": _object({"image": image}),
        "Prediction": prediction,
        "Error": _object({"error": _object({"type": _STRING, "message": _STRING})}),
        "Ready": _object({"status": {"const": "ready"}}),
        "ExecutionParameters": _object(
            {"MaxConcurrentTransforms": integer, "BatchStrategy": _STRING, "MaxPayloadInMB": integer}
        ),
        "LoadRequest": _object({"model_name": _STRING, "url": _STRING}),
        "Model": _object({"modelName": _STRING, "modelUrl": _STRING}),
        "Models": {
            "type": "object",
            "required": ["models"],
            "properties": {"models": models, "nextPageToken": _STRING},
        },
    }


def _object(properties: Document) -> Document:
    return {"type": "object", "required": list(properties), "properties": properties}
