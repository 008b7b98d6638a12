"""``GET /``, for trying a model on one's own machine: drop a photo, see its labels."""

from pathlib import Path

from flask import Flask, Response

from classifier.vision.card import ModelCard

_PAGE = Path(__file__).with_name("page.html")


def add_page(app: Flask, card: ModelCard) -> None:
    """Serve the page at ``/``. Self-contained: it asks nothing of any other host."""
    text = _PAGE.read_text(encoding="utf-8")
    for name, value in {"ARCHITECTURE": card.architecture, "NUM_CLASSES": str(len(card.classes))}.items():
        text = text.replace(f"{{{{{name}}}}}", value)

    @app.get("/")
    def page() -> Response:
        return Response(text, content_type="text/html; charset=utf-8")
