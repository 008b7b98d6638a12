"""Imports of smdebug, without its log lines and its access to the platform's files.

The other modules of this package import smdebug from here or within :func:`isolated`. The import takes one to two
seconds, so it happens only if debugging is on.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_MISSING_FILE = os.path.join(os.devnull, "none")  # noqa: PTH118 - a path that cannot exist
_ENVIRONMENT = {
    "SMDEBUG_LOG_LEVEL": "error",
    "SMDEBUG_CONFIG_FILE_PATH": _MISSING_FILE,
    # smdebug would start its own profiler, and write into the checkpoint folder.
    "SMPROFILER_CONFIG_PATH": _MISSING_FILE,
    "CHECKPOINT_CONFIG_FILE_PATH": _MISSING_FILE,
}


@contextmanager
def isolated() -> Iterator[None]:
    """Hide the platform's files from smdebug; afterwards, let it log only errors."""
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
    silence()


def silence() -> None:
    """Suppress smdebug's log lines (one for every step) and its deprecation warnings."""
    logging.getLogger("smdebug").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"smdebug\.")


with isolated():
    from smdebug.core.access_layer.s3handler import ListRequest, ReadObjectRequest, S3Handler
    from smdebug.core.index_reader import IndexReader
    from smdebug.core.locations import IndexFileLocationUtils, TensorFileLocation
    from smdebug.core.modes import ModeKeys
    from smdebug.core.reductions import get_reduction_tensor_name
    from smdebug.core.tfevent.event_file_reader import get_tensor_data
    from smdebug.core.tfrecord.record_writer import CHECKSUM_MAGIC_BYTES, masked_crc32c
    from smdebug.core.tfrecord.tensor_reader import TensorReader
    from smdebug.core.utils import is_s3, match_inc
    from smdebug.rules import Rule
    from smdebug.trials import create_trial
    from smdebug.trials.trial import Trial

__all__ = [
    "CHECKSUM_MAGIC_BYTES",
    "IndexFileLocationUtils",
    "IndexReader",
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
    "masked_crc32c",
    "match_inc",
    "silence",
]
