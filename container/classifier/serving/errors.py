"""Why a request is not answered with predictions. No HTTP here: ``app`` maps these to statuses, in one place.

UserError
`-- RequestError        the request itself
    |-- TooLargeError     a body, a photo or a list over its limit
    |-- AcceptError       no form that the caller takes is written here
    |-- TooSlowError      the body did not arrive in time
    |-- UnknownModelError a model that is not loaded
    `-- ModelExistsError  a model that is loaded already
UnavailableError        ours: not now; the same request may succeed later
|-- BusyError             the queue is full
|-- DeadlineError         the queue did not reach the request in time
`-- OutOfMemoryError      no room for another model
"""

from classifier.errors import UserError


class RequestError(UserError):
    """A request that is not what it claims to be."""


class TooLargeError(RequestError):
    """A body, a photo or a list over its limit."""


class AcceptError(RequestError):
    """No form that the caller takes is written here."""


class TooSlowError(RequestError):
    """The request did not arrive in time."""


class UnknownModelError(RequestError):
    """A model that is not loaded."""


class ModelExistsError(RequestError):
    """A model that is loaded already."""


class UnavailableError(Exception):
    """Not now. The same request may succeed later."""


class BusyError(UnavailableError):
    """The queue is full."""


class DeadlineError(UnavailableError):
    """The queue did not reach the request in time."""


class OutOfMemoryError(UnavailableError):
    """No room for another model."""
