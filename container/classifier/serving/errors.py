"""Request errors, mapped to HTTP statuses in ``app``.

UserError
`-- RequestError          the caller can fix the request
    |-- TooLargeError     a body, an image or a list exceeds its limit
    |-- AcceptError       no media type in ``Accept`` can be written
    |-- TooSlowError      the request did not arrive in time
    |-- ProtocolError     the request is not valid HTTP, or exceeds a limit of its head
    |-- UnknownModelError no model of that name is loaded
    `-- ModelExistsError  a model of that name is already loaded
UnavailableError          the server can't answer now; the same request may succeed later
|-- BusyError             the queue is full
|-- DeadlineError         the queue did not reach the request in time
|-- NotReadyError         ``/ready``: a balancer should send requests elsewhere
`-- OutOfMemoryError      not enough memory for another model
"""

from classifier.errors import UserError


class RequestError(UserError):
    """An invalid request."""


class TooLargeError(RequestError):
    """A body, an image or a list exceeds its limit."""


class AcceptError(RequestError):
    """No media type in ``Accept`` can be written."""


class TooSlowError(RequestError):
    """The request did not arrive in time."""


class ProtocolError(RequestError):
    """The request is not valid HTTP, or exceeds a limit of its head.

    Args:
        message: what is wrong.
        status: the HTTP status to respond with.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class UnknownModelError(RequestError):
    """No model of that name is loaded."""


class ModelExistsError(RequestError):
    """A model of that name is already loaded."""


class UnavailableError(Exception):
    """The server can't answer now; the same request may succeed later."""


class BusyError(UnavailableError):
    """The queue is full."""


class DeadlineError(UnavailableError):
    """The queue did not reach the request in time."""


class NotReadyError(UnavailableError):
    """A balancer should send requests elsewhere."""


class OutOfMemoryError(UnavailableError):
    """Not enough memory for another model."""
