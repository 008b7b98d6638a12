"""Event files, read with TensorBoard."""

import math
from pathlib import Path

import pytest

from classifier.reporting.tensorboard import EventFile

pytestmark = pytest.mark.filterwarnings("ignore")  # raised by tensorboard itself


def test_scalars_are_read_at_their_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    events = EventFile(tmp_path / "new")
    for step in (0, 1, 127, 128, 70_000):
        events.add(step, {"train/loss": 1 / (step + 1), "train/learning_rate": 1e-7}, at=1e9 + step)
    events.add(70_000, {"validation/loss": math.inf}, at=2e9)
    events.close()
    reader = EventAccumulator(str(tmp_path / "new"), size_guidance={"scalars": 0}).Reload()
    assert set(reader.Tags()["scalars"]) == {"train/loss", "train/learning_rate", "validation/loss"}
    losses = reader.Scalars("train/loss")
    assert [one.step for one in losses] == [0, 1, 127, 128, 70_000]
    assert [one.value for one in losses] == pytest.approx([1 / (one.step + 1) for one in losses])
    assert losses[2].wall_time == 1e9 + 127
    assert math.isinf(reader.Scalars("validation/loss")[0].value)


def test_no_file_without_scalars(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    events.flush()
    events.close()
    assert list(tmp_path.iterdir()) == []
