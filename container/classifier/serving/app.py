"""The Flask applications: routes of one model and of several, errors mapped to statuses, request logging.

The only module that imports Flask.
"""

import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from classifier.errors import ArtifactError, ImageError, MediaTypeError, UserError
from classifier.serving import codec
from classifier.serving.errors import (
    AcceptError,
    ModelExistsError,
    OutOfMemoryError,
    RequestError,
    TooLargeError,
    TooSlowError,
    UnavailableError,
    UnknownModelError,
)
from classifier.serving.front import IS_WANTED, REQUEST_ERROR
from classifier.serving.model_manager import LoadedModel, ModelManager
from classifier.serving.predictor import Job, Predictor
from classifier.serving.settings import MIB, ServerSettings
from classifier.serving.telemetry import Telemetry, log_line
from classifier.vision.manifest import ModelManifest

# The first match counts, so subclasses come before their bases.
STATUS: dict[type[Exception], int] = {
    ImageError: 422,
    MediaTypeError: 415,
    AcceptError: 406,
    TooLargeError: 413,
    TooSlowError: 408,
    UnknownModelError: 404,
    ModelExistsError: 409,
    ArtifactError: 400,
    RequestError: 400,
    OutOfMemoryError: 507,
    UnavailableError: 503,
}
RETRY_AFTER_S = 1
# Routes that never wait for a model, so the transport may call them on its own thread.
INLINE_PATHS = frozenset({"/ping", "/execution-parameters"})
DEFAULT_TOP_K = 5
MODELS_PER_PAGE = 100
_PAGE = Path(__file__).with_name("page.html")


def create_app(predictor: Predictor, settings: ServerSettings, telemetry: Telemetry) -> Flask:
    """Create the application that serves one model at ``/invocations``, with a page to try it on if configured."""
    app = _base_app(settings, telemetry, predictor.is_answering)
    telemetry.set_depth_source(lambda: predictor.queue_depth)

    @app.post("/invocations")
    def invocations() -> Response:
        return _predict(predictor, settings)

    if settings.page:
        _add_page(app, predictor.manifest)
    return app


def create_multi_model_app(manager: ModelManager, settings: ServerSettings, telemetry: Telemetry) -> Flask:
    """Create the application that implements the platform's multi-model API."""
    app = _base_app(settings, telemetry, manager.is_answering)
    telemetry.set_depth_source(lambda: sum(one.predictor.queue_depth for one in manager.all()))

    @app.post("/models")
    def load() -> dict[str, Any]:
        document = codec.parse_json(request.get_data())
        name, url = _field(document, "model_name"), _field(document, "url")
        return _describe(manager.load(name, url))

    @app.get("/models")
    def models() -> dict[str, Any]:
        return _list_page(manager.all(), request.args.get("next_page_token", ""))

    @app.get("/models/<path:name>")
    def model(name: str) -> dict[str, Any]:
        return _describe(manager.get(name))

    @app.delete("/models/<path:name>")
    def unload(name: str) -> dict[str, Any]:
        return _describe(manager.unload(name))

    @app.post("/models/<path:name>/invoke")
    def invoke(name: str) -> Response:
        with manager.use(name) as model:
            return _predict(model.predictor, settings)

    return app


def _base_app(settings: ServerSettings, telemetry: Telemetry, is_answering: Callable[[], bool]) -> Flask:
    """An application with the routes, hooks and error handlers that all applications share."""
    app = Flask(__name__, static_folder=None)
    app.before_request(_begin_request)
    app.after_request(lambda response: _end_request(response, telemetry))
    app.register_error_handler(UserError, _handle_error)
    app.register_error_handler(UnavailableError, _handle_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)

    @app.get("/ping")
    def ping() -> Response:
        return Response(status=200 if is_answering() else 503)

    @app.get("/execution-parameters")
    def execution_parameters() -> dict[str, Any]:
        return {
            "MaxConcurrentTransforms": min(8, settings.max_requests),
            "BatchStrategy": "SINGLE_RECORD",
            "MaxPayloadInMB": min(100, int(settings.max_body / MIB)),
        }

    return app


# Predictions


def _predict(predictor: Predictor, settings: ServerSettings) -> Response:
    # Accept is checked before anything is computed.
    response_format = codec.negotiate(request.headers.get("Accept", ""), settings.default_accept)
    top_k = _top_k(request.headers.get("X-Amzn-SageMaker-Custom-Attributes", ""))
    photos = codec.decode(request.get_data(cache=False), request.headers.get("Content-Type", ""), settings)
    g.job = Job(is_wanted=request.environ.get(IS_WANTED, lambda: True))
    outcomes = predictor.predict(photos.instances, g.job)
    body = codec.encode(outcomes, response_format, single=photos.single, top_k=top_k)
    media_type = response_format.media_type
    return Response(body, content_type=f"{media_type}; charset=utf-8" if media_type == "text/csv" else media_type)


@lru_cache(maxsize=64)
def _top_k(attributes: str) -> int:
    """Parse ``top_k=3`` from the custom attributes; other attributes are ignored."""
    pairs = (one.partition("=") for one in attributes.replace(";", ",").split(","))
    text = next((value.strip() for name, _, value in pairs if name.strip() == "top_k"), str(DEFAULT_TOP_K))
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) < 1:
        raise RequestError(f"top_k should be an integer of at least 1, not {text[:50]!r}")
    return int(text)


# Multi-model documents


def _field(document: object, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str) or not value:
        raise RequestError('the JSON should be {"model_name": "…", "url": "…"}')
    return value


def _describe(model: LoadedModel) -> dict[str, Any]:
    return {"modelName": model.name, "modelUrl": model.url}


def _list_page(models: list[LoadedModel], token: str) -> dict[str, Any]:
    """One page of the sorted models, from the first whose name follows ``token``."""
    rest = [one for one in models if one.name > token]
    page = {"models": [_describe(one) for one in rest[:MODELS_PER_PAGE]]}
    return page if len(rest) <= MODELS_PER_PAGE else {**page, "nextPageToken": rest[MODELS_PER_PAGE - 1].name}


# The page


def _add_page(app: Flask, manifest: ModelManifest) -> None:
    """Serve a self-contained page at ``/``, which loads nothing from another host."""
    text = _PAGE.read_text(encoding="utf-8")
    for name, value in {"ARCHITECTURE": manifest.architecture, "NUM_CLASSES": str(len(manifest.classes))}.items():
        text = text.replace(f"{{{{{name}}}}}", value)

    @app.get("/")
    def page() -> Response:
        return Response(text, content_type="text/html; charset=utf-8")


# Errors


def _handle_error(error: Exception) -> Response:
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    g.error = error
    response = Response(codec.dump_json(codec.error_document(error)), status, content_type=codec.JSON)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _handle_http_error(error: HTTPException) -> Response:
    """Flask's own errors: an unknown path, or a method that a path does not support."""
    g.error = error
    document = codec.error_document(error, error.description)
    headers = [one for one in error.get_headers() if one[0] == "Allow"]
    return Response(codec.dump_json(document), error.code, headers, content_type=codec.JSON)


def _handle_unexpected_error(error: Exception) -> Response:
    # A bug. The traceback goes to the log and never to the caller.
    g.error = error
    log_line(level="error", message="request failed", error=_traceback(error))
    document = {"error": {"type": "InternalError", "message": "the server failed on this request"}}
    return Response(codec.dump_json(document), 500, content_type=codec.JSON)


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


# Hooks and logging


def _begin_request() -> None:
    g.start = time.monotonic()
    error = request.environ.get(REQUEST_ERROR)
    if error is not None:
        raise error


def _end_request(response: Response, telemetry: Telemetry) -> Response:
    seconds = time.monotonic() - g.start
    telemetry.record_request(response.status_code, seconds)
    if request.path != "/ping" or response.status_code != 200:
        _log_request(response.status_code, seconds)
    return response


def _log_request(status: int, seconds: float) -> None:
    job: Job | None = g.get("job")
    error: Exception | None = g.get("error")
    log_line(
        method=request.method,
        path=request.path,
        status=status,
        ms=round(seconds * 1e3, 2),
        stages_ms={name: round(value * 1e3, 2) for name, value in job.stages_s.items()} if job else None,
        num_bytes=request.content_length,
        inference_id=request.headers.get("X-Amzn-SageMaker-Inference-Id"),
        error=type(error).__name__ if error else None,
    )
