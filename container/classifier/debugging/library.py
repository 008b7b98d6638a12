"""smdebug, imported so that it neither talks nor reads and writes the platform's files behind our back.

All other modules of this folder take it from here or import it within :func:`isolated`. It costs a second or two, so
it is imported only where debugging is on.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOWHERE = os.path.join(os.devnull, "none")  # noqa: PTH118 - a name of nothing
_ENVIRONMENT = {
    "SMDEBUG_LOG_LEVEL": "error",
    "SMDEBUG_CONFIG_FILE_PATH": _NOWHERE,
    # It would start a profiler of its own, and write into the checkpoints' folder.
    "SMPROFILER_CONFIG_PATH": _NOWHERE,
    "CHECKPOINT_CONFIG_FILE_PATH": _NOWHERE,
}


@contextmanager
def isolated() -> Iterator[None]:
    """Within it smdebug finds none of the platform's files; afterwards it says nothing but errors."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    quieten()


def quieten() -> None:
    """It logs at every step, and calls what numpy has deprecated."""
    logging.getLogger("smdebug").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"smdebug\.")


with isolated():
    from smdebug.core.access_layer.s3handler import ListRequest, ReadObjectRequest, S3Handler
    from smdebug.core.locations import TensorFileLocation
    from smdebug.core.modes import ModeKeys
    from smdebug.core.reductions import get_reduction_tensor_name
    from smdebug.core.tfevent.event_file_reader import get_tensor_data
    from smdebug.core.tfrecord.tensor_reader import TensorReader
    from smdebug.core.utils import is_s3, match_inc
    from smdebug.rules import Rule
    from smdebug.trials import create_trial
    from smdebug.trials.trial import Trial

__all__ = [
    "ListRequest",
    "ModeKeys",
    "ReadObjectRequest",
    "Rule",
    "S3Handler",
    "TensorFileLocation",
    "TensorReader",
    "Trial",
    "create_trial",
    "get_reduction_tensor_name",
    "get_tensor_data",
    "is_s3",
    "isolated",
    "match_inc",
    "quieten",
]
