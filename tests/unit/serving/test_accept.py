"""``Accept`` → the form of the answer."""

import pytest

from classifier.serving.codec import Answer, choose
from classifier.serving.errors import AcceptError

JSON = "application/json"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("APPLICATION/JSON", JSON),
        ("application/*", JSON),
        ("text/*", "text/csv"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("application/x-npy", "application/x-npy"),
        ("image/png, application/jsonlines", "application/jsonlines"),
        ("text/csv;q=0.5, application/x-npy;q=0.9", "application/x-npy"),
        ("text/csv;q=0, application/json", JSON),
        ("text/csv;q=nonsense, application/json", JSON),
        ("text/html, */*;q=0.1", JSON),
    ],
)
def test_the_form_that_the_caller_likes_best_is_chosen(accept: str, form: str) -> None:
    assert choose(accept, JSON).form == form


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/xml;q=1", "application/json;q=0", ";", ",;,q"])
def test_what_can_not_be_met_is_refused(accept: str) -> None:
    with pytest.raises(AcceptError, match="application/json"):
        choose(accept, JSON)


@pytest.mark.parametrize("accept", ["application/json;verbose", "application/json; verbose=true; q=0.5"])
def test_verbose_is_a_parameter(accept: str) -> None:
    assert choose(accept, JSON) == Answer("application/json", verbose=True)


@pytest.mark.parametrize("accept", ["", "*/*"])
def test_the_default_is_the_operators(accept: str) -> None:
    assert choose(accept, "text/csv") == Answer("text/csv")
    assert choose(accept, "application/json;verbose") == Answer("application/json", verbose=True)
