"""The end of a program whose reader has gone."""

import os
import subprocess
import sys

import pytest

from classifier.train import main


def test_listing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--describe"]) == 0
    assert "resnet18" in capsys.readouterr().out


def test_listing_without_a_reader_ends_as_sigpipe_would() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-m", "classifier.train", "--describe"]
    try:
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
