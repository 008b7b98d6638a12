"""Fixtures of the training tests: a scanned channel, and threads that read it."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from classifier.training.folders import list_channel
from classifier.training.samples import SampleTable
from classifier.training.scan import scan_channel


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def samples(image_folder: Path, executor: Executor) -> SampleTable:
    """The 24 photos of ``image_folder``, class by class."""
    return scan_channel(list_channel("train", image_folder), executor, lambda: None).samples
