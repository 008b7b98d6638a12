"""What can go wrong that a caller can mend. Anything else that goes wrong is ours, and crashes.

UserError             the caller can fix it; the message says how
|-- ConfigError       a hyperparameter, a channel or another file of input/config
|-- DataError         the image folders
|-- ImageError        one image
|-- WeightsError      pretrained weights
|-- ArtifactError     the folder of a trained model
`-- MediaTypeError    a content type that is not read or written

Stopped               no error: an orderly end before the last step
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the caller can fix. The message says what was wrong, where, and what to do."""


class ConfigError(UserError):
    """A hyperparameter, a channel or another file of ``input/config``."""


class DataError(UserError):
    """The image folders of a channel."""


class ImageError(UserError):
    """One image that cannot be read."""


class WeightsError(UserError):
    """Pretrained weights that cannot be had or do not fit."""


class ArtifactError(UserError):
    """A folder that does not hold a trained model."""


class MediaTypeError(UserError):
    """A content type that is not read or written."""


class Stopped(Exception):  # noqa: N818 (no error: an orderly end)
    """The platform, the user or a rule asked to stop; raised between two steps, and what there is is kept."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known name, or nothing when none is near."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
