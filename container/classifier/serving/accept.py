"""An ``Accept`` header → the form of the answer. Decided before inference."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from classifier.serving.refusals import AcceptError

Form = Literal["application/json", "application/jsonlines", "text/csv", "application/x-npy"]
FORMS: tuple[Form, ...] = ("application/json", "application/jsonlines", "text/csv", "application/x-npy")


@dataclass(frozen=True)
class Answer:
    """The form of an answer, and whether it says all that is known."""

    form: Form
    verbose: bool = False


@dataclass(frozen=True)
class _Range:
    kind: str
    quality: float
    verbose: bool


# A server hears the same few headers again and again.
@lru_cache(maxsize=64)
def choose(accept: str, default: str) -> Answer:
    """The form that the caller likes best. ``*/*``, or no header, leaves the choice to ``default``.

    Raises:
        AcceptError: none of the forms that the caller takes is written here.
    """
    for wanted in _ranges(accept):
        if wanted.kind == "*/*":
            fallback = _ranges(default)[0]
            return Answer(_first(fallback.kind) or FORMS[0], fallback.verbose)
        form = _first(wanted.kind)
        if form is not None:
            return Answer(form, wanted.verbose)
    raise AcceptError(f"can't answer as {accept[:200]!r}; can as {', '.join(FORMS)}")


def _first(kind: str) -> Form | None:
    prefix = kind.removesuffix("*")
    return next((form for form in FORMS if form == kind or (prefix != kind and form.startswith(prefix))), None)


def _ranges(accept: str) -> list[_Range]:
    """Best first; those of quality 0 are left out. An empty header takes anything."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [_Range("*/*", 1, verbose=False)]
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def _range(text: str) -> _Range:
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    return _Range(kind, _number(quality), verbose="verbose" in parameters or "verbose=true" in parameters)


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
