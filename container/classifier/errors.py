"""Errors that the caller can fix; any other exception is a bug.

UserError             the message says what was wrong, where, and what to do
|-- ConfigError       a hyperparameter, a channel or another file of input/config
|-- DataError         the image folders
|-- ImageError        one image
|   `-- ImageTooLargeError  its decoding needs too much memory
|-- WeightsError      pretrained weights
|-- ArtifactError     the folder of a trained model
`-- MediaTypeError    a content type that is not read or written

Stopped               not an error: an orderly end before the last step
"""

import difflib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

# Besides torch's own OutOfMemoryError: CUDA's runtime, cuDNN, cuBLAS and cuSOLVER allocate memory of their own and
# report a lack of it as a RuntimeError, and so does torch's allocator of host memory.
_OUT_OF_MEMORY = re.compile(r"out of memory|\bCU[A-Z]+_\w*ALLOC(?:ATION)?_FAILED\b|DefaultCPUAllocator: ")


class UserError(Exception):
    """Something the caller can fix. The message says what was wrong, where, and what to do."""


class ConfigError(UserError):
    """A hyperparameter, a channel or another file of ``input/config`` is invalid."""


class DataError(UserError):
    """The image folders of a channel can't be used."""


class ImageError(UserError):
    """One image can't be read."""


class ImageTooLargeError(ImageError):
    """Decoding one image would need too much memory, even at the smallest scale that suffices."""


class WeightsError(UserError):
    """Pretrained weights are not available or do not fit the network."""


class ArtifactError(UserError):
    """A folder does not hold a trained model."""


class MediaTypeError(UserError):
    """A content type is not read or written."""


class Stopped(Exception):  # noqa: N818 (not an error: an orderly end)
    """The platform, the user or a debugger rule requested a stop. Raised between steps; the best model is kept."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or the one during whose handling it was raised, means that memory was too small.

    A capture of a CUDA graph that runs out of memory may end in another error. Needs no torch.
    """
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or an empty string if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


@contextmanager
def failure_as_warning(warn: Callable[[str], None], message: str) -> Iterator[None]:
    """Report any exception but Stopped as a warning: a step after the training must not cost the user the model.

    Args:
        warn: called with ``message`` and the traceback.
        message: what failed, such as ``report.html could not be written``.
    """
    try:
        yield
    except Stopped:
        raise
    except Exception:
        warn(f"{message}; the model is not affected\n{traceback.format_exc()}")


def describe_failure(error: Exception) -> tuple[int, str]:
    """Return a program's exit code and the text of ``output/failure``: 1 and a message, or 2, with a traceback."""
    if isinstance(error, UserError):
        return 1, f"{type(error).__name__}: {error}"
    reason = f"internal error, please report it: {type(error).__name__}: {error}"
    return 2, f"{reason}\n\n{''.join(traceback.format_exception(error))}"
