"""The routes, and error → status in one place. The one module that imports Flask."""

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
from classifier.serving.codec import Answer, choose
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
from classifier.serving.front import IS_WANTED, REFUSAL
from classifier.serving.model_manager import Shelf, Shelved
from classifier.serving.predictor import Job, Predictor
from classifier.serving.settings import MIB, Settings
from classifier.serving.telemetry import Telemetry, log_line
from classifier.vision.manifest import ModelManifest

_PAGE = Path(__file__).with_name("page.html")


def add_page(app: Flask, manifest: ModelManifest) -> None:
    """Serve the page at ``/``. Self-contained: it asks nothing of any other host."""
    text = _PAGE.read_text(encoding="utf-8")
    for name, value in {"ARCHITECTURE": manifest.architecture, "NUM_CLASSES": str(len(manifest.classes))}.items():
        text = text.replace(f"{{{{{name}}}}}", value)

    @app.get("/")
    def page() -> Response:
        return Response(text, content_type="text/html; charset=utf-8")


# The first that fits; so the narrower before the wider.
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
INLINE_PATHS = frozenset({"/ping", "/execution-parameters"})
DEFAULT_TOP_K = 5
MODELS_A_PAGE = 100


def create_app(predictor: Predictor, settings: Settings, telemetry: Telemetry) -> Flask:
    """One model behind ``/invocations``."""
    app = _base_app(settings, telemetry, predictor.is_answering)
    telemetry.show_depth(lambda: predictor.queue_depth)

    @app.post("/invocations")
    def invocations() -> Response:
        return _predict(predictor, settings)

    if settings.page:
        add_page(app, predictor.manifest)
    return app


def create_multi_model_app(shelf: Shelf, settings: Settings, telemetry: Telemetry) -> Flask:
    """Several models: the platform's multi-model API."""
    app = _base_app(settings, telemetry, shelf.is_answering)
    telemetry.show_depth(lambda: sum(one.predictor.queue_depth for one in shelf.all()))

    @app.post("/models")
    def load() -> dict[str, Any]:
        document = codec.parse_json(request.get_data())
        name, url = _field(document, "model_name"), _field(document, "url")
        return _describe(shelf.load(name, url))

    @app.get("/models")
    def models() -> dict[str, Any]:
        return _page_of(shelf.all(), request.args.get("next_page_token", ""))

    @app.get("/models/<path:name>")
    def model(name: str) -> dict[str, Any]:
        return _describe(shelf.get(name))

    @app.delete("/models/<path:name>")
    def unload(name: str) -> dict[str, Any]:
        return _describe(shelf.unload(name))

    @app.post("/models/<path:name>/invoke")
    def invoke(name: str) -> Response:
        return _predict(shelf.get(name).predictor, settings)

    return app


def _base_app(settings: Settings, telemetry: Telemetry, is_answering: Callable[[], bool]) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.before_request(_begin)
    app.after_request(lambda response: _end(response, telemetry))
    app.register_error_handler(UserError, _explain)
    app.register_error_handler(UnavailableError, _explain)
    app.register_error_handler(HTTPException, _explain_http)
    app.register_error_handler(Exception, _hide)

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


def _predict(predictor: Predictor, settings: Settings) -> Response:
    answer = choose(request.headers.get("Accept", ""), settings.default_accept)
    top_k = _top_k(request.headers.get("X-Amzn-SageMaker-Custom-Attributes", ""))
    photos = codec.decode(request.get_data(cache=False), request.headers.get("Content-Type", ""), settings)
    g.job = Job(is_wanted=request.environ.get(IS_WANTED, lambda: True))
    outcomes = predictor.predict(photos.items, g.job)
    body = codec.encode(outcomes, answer, single=photos.single, top_k=top_k)
    return Response(body, content_type=_content_type(answer))


def _content_type(answer: Answer) -> str:
    return f"{answer.form}; charset=utf-8" if answer.form == "text/csv" else answer.form


@lru_cache(maxsize=64)
def _top_k(attributes: str) -> int:
    """``top_k=3`` among the custom attributes; those of others are left alone."""
    pairs = (one.partition("=") for one in attributes.replace(";", ",").split(","))
    text = next((value.strip() for name, _, value in pairs if name.strip() == "top_k"), str(DEFAULT_TOP_K))
    if not text.isascii() or not text.isdigit() or len(text) > 6 or int(text) < 1:
        raise RequestError(f"top_k should be a number from 1, not {text[:50]!r}")
    return int(text)


def _field(document: object, name: str) -> str:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str) or not value:
        raise RequestError('the JSON should be {"model_name": "…", "url": "…"}')
    return value


def _describe(shelved: Shelved) -> dict[str, Any]:
    return {"modelName": shelved.name, "modelUrl": shelved.url}


def _page_of(models: list[Shelved], token: str) -> dict[str, Any]:
    rest = [one for one in models if one.name > token]
    page = {"models": [_describe(one) for one in rest[:MODELS_A_PAGE]]}
    return page if len(rest) <= MODELS_A_PAGE else {**page, "nextPageToken": rest[MODELS_A_PAGE - 1].name}


def _begin() -> None:
    g.start = time.monotonic()
    refusal = request.environ.get(REFUSAL)
    if refusal is not None:
        raise refusal


def _explain(error: Exception) -> Response:
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    g.error = error
    response = Response(codec.dump(codec.error_document(error)), status, content_type=codec.JSON)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _explain_http(error: HTTPException) -> Response:
    """Flask's own refusals: an unknown path, a method that a path does not take."""
    g.error = error
    document = codec.error_document(error, error.description)
    headers = [one for one in error.get_headers() if one[0] == "Allow"]
    return Response(codec.dump(document), error.code, headers, content_type=codec.JSON)


def _hide(error: Exception) -> Response:
    # Ours. The log has the traceback; the caller gets none of it.
    g.error = error
    log_line(level="error", message="request failed", error=_traceback(error))
    document = {"error": {"type": "InternalError", "message": "the server failed on this request"}}
    return Response(codec.dump(document), 500, content_type=codec.JSON)


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def _end(response: Response, telemetry: Telemetry) -> Response:
    seconds = time.monotonic() - g.start
    telemetry.request(response.status_code, seconds)
    if request.path != "/ping" or response.status_code != 200:
        _log(response.status_code, seconds)
    return response


def _log(status: int, seconds: float) -> None:
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
