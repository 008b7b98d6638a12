"""Trainings that end early and go on from a checkpoint: the same results as if they had never been interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classifier.debugging.library import ModeKeys, create_trial
from classifier.training.checkpoints import Checkpoint, CheckpointSaver
from classifier.training.loop import Trainer, evaluate
from support.jobs import Job, Platform
from support.servers import write_artifact

CHECKPOINTS = {"LocalPath": "/opt/ml/checkpoints"}
LOSSES = {"LocalPath": "/opt/ml/output/tensors", "CollectionConfigurations": [{"CollectionName": "losses"}]}
LOSSES["HookParameters"] = {"save_interval": "1"}
# Three steps an epoch: 18 of 24 photos.
PARAMETERS = {"epochs": "3", "augmentation": "strong", "checkpoint_interval_s": "0", "seed": "5"}


class Killed(BaseException):
    """The process ends here."""


def lay_out(platform: Platform, data: Path, **parameters: str) -> None:
    """Lay out a job with checkpoints; the checkpoints of an earlier one stay."""
    kept = platform.paths.base.with_name("kept")
    if (platform.paths.base / "checkpoints").exists():
        (platform.paths.base / "checkpoints").rename(kept)
    platform.lay_out({"train": data}, {**PARAMETERS, **parameters})
    platform.write_config("checkpointconfig.json", json.dumps(CHECKPOINTS))
    if kept.exists():
        kept.rename(platform.paths.base / "checkpoints")


def before_call(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, function: Any, action: Callable[[], None]
) -> None:
    """Call ``action`` before the call of this number, from 1, of the function of this name."""
    calls = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return function(*arguments, **options)

    monkeypatch.setattr(name, counting)


def kill() -> None:
    raise Killed


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def kill_before_step(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the training before a step, with a checkpoint of each step before it, however slow the disk is."""
    save = CheckpointSaver.save

    def save_and_wait(saver: CheckpointSaver, take: Callable[[], Checkpoint]) -> None:
        save(saver, take)
        saver.wait()

    monkeypatch.setattr(CheckpointSaver, "save", save_and_wait)
    before_call(monkeypatch, "classifier.training.loop.Trainer._train_step", number, Trainer._train_step, kill)


def results(job: Job) -> dict[str, bytes]:
    files = [*job.paths.model.iterdir(), *(job.paths.output_data / name for name in ("history.csv", "steps.csv"))]
    return {path.name: path.read_bytes() for path in files}


def scalars(job: Job) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415 - slow

    events = EventAccumulator(str(job.paths.tensorboard))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def losses(job: Job) -> dict[str, dict[int, float]]:
    trial: Any = create_trial(str(job.paths.base / "output" / "tensors"))
    loss = trial.tensor("CrossEntropyLoss_output_0")
    return {
        mode.name: {step: float(loss.value(step, mode=mode)) for step in loss.steps(mode=mode)}
        for mode in (ModeKeys.TRAIN, ModeKeys.EVAL)
    }


def test_a_resumed_training_equals_an_uninterrupted_one(
    platform: Platform, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(platform, image_folder)
    platform.write_config("debughookconfig.json", json.dumps(LOSSES))
    whole = platform.run()
    assert whole.exit_code == 0, whole.log
    expected, expected_scalars, expected_losses = results(whole), scalars(whole), losses(whole)
    shutil.rmtree(platform.paths.base / "checkpoints")
    shutil.rmtree(platform.paths.tensorboard)

    # Killed in the second epoch, while all files stay, and some of them are ahead of the checkpoint.
    with monkeypatch.context() as patch:
        kill_before_step(patch, 6)
        with pytest.raises(Killed):
            platform.run()
    # Stopped in the validation of the second epoch.
    with monkeypatch.context() as patch:
        before_call(patch, "classifier.training.epochs.evaluate", 1, evaluate, stop)
        stopped = platform.run()
    assert stopped.exit_code == 0, stopped.log
    assert re.search(r"^resumed +at epoch 2, step [12] of 3, from checkpoint-", stopped.log, re.MULTILINE)
    assert (platform.paths.model / "model.safetensors").exists()
    # Restarted on another host, which gets the checkpoints and nothing else; the tensors are on S3 by then.
    shutil.rmtree(platform.paths.model)
    shutil.rmtree(platform.paths.output_data)
    shutil.rmtree(platform.paths.tensorboard)
    last = platform.run()
    assert last.exit_code == 0, last.log
    assert re.search(r"^resumed +at epoch 2, step 3 of 3, from checkpoint-0002-00000003", last.log, re.MULTILINE)
    assert "warning" not in last.log, last.log
    assert results(last) == expected
    assert scalars(last) == expected_scalars
    assert losses(last) == expected_losses


def test_a_finished_training_goes_on_with_more_epochs_and_with_nothing_else_changed(
    platform: Platform, image_folder: Path
) -> None:
    lay_out(platform, image_folder, epochs="1")
    assert platform.run().exit_code == 0
    again = platform.run()
    assert "resumed     after the last epoch, from checkpoint-0002-00000000.safetensors" in again.log
    assert (platform.paths.model / "model.safetensors").exists()
    lay_out(platform, image_folder, epochs="2", num_workers="0", checkpoint_interval_s="9", profile="true")
    longer = platform.run()
    assert (longer.exit_code, longer.failure) == (0, None)
    assert "epochs      1 → 2: the learning-rate schedule is stretched" in longer.log
    assert "epoch   1/2" not in longer.log
    assert "epoch   2/2" in longer.log
    lay_out(platform, image_folder, epochs="1", lr="0.5")
    (image_folder / "disc" / "0.jpg").unlink()
    other = platform.run()
    assert other.exit_code == 1
    assert other.failure is not None
    assert other.failure.startswith(
        "ConfigError: checkpoint-0003-00000000.safetensors is of another training: epochs was 2 and is 1; "
        "lr was 0.001 and is 0.5; the photos changed. To go on from it, "
    )


def test_a_stop_in_the_first_epoch_leaves_a_checkpoint_at_its_step(
    platform: Platform, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(platform, image_folder, checkpoint_interval_s="600")
    with monkeypatch.context() as patch:
        step = Trainer._train_step
        before_call(patch, "classifier.training.loop.Trainer._train_step", 2, step, stop)
        job = platform.run()
    assert job.exit_code == 0, job.log
    assert (platform.paths.model / "model.safetensors").exists()
    names = [path.name for path in (platform.paths.base / "checkpoints").iterdir()]
    assert names == ["checkpoint-0001-00000002.safetensors"]


def test_a_head_on_cached_features_resumes_inside_an_epoch(
    platform: Platform, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_artifact(tmp_path / "weights", architecture="mobilenet_v3_small", side=32)
    frozen = {"model": "mobilenet_v3_small", "pretrained": "true", "freeze": "backbone", "optimizer": "sgd"}
    channels = {"train": image_folder, "pretrained": weights}
    platform.lay_out(channels, {**PARAMETERS, **frozen, "augmentation": "flip"})
    expected = results(platform.run())
    platform.write_config("checkpointconfig.json", json.dumps(CHECKPOINTS))
    with monkeypatch.context() as patch:
        kill_before_step(patch, 9)
        with pytest.raises(Killed):
            platform.run()
    shutil.rmtree(platform.paths.model)
    shutil.rmtree(platform.paths.output_data)
    last = platform.run()
    assert "resumed     at epoch 3, step " in last.log
    assert results(last) == expected
    assert max(path.stat().st_size for path in (platform.paths.base / "checkpoints").iterdir()) < 200_000


@pytest.mark.slow
@pytest.mark.gate
def test_twenty_kills_at_random_moments_change_no_byte(platform: Platform, image_folder: Path) -> None:
    parameters = {"epochs": "8", "model": "resnet18", "batch_size": "4"}
    lay_out(platform, image_folder, **parameters)
    expected = results(platform.run())
    shutil.rmtree(platform.paths.base / "checkpoints")
    for folder in (platform.paths.model, platform.paths.output_data.parent):
        shutil.rmtree(folder)

    command = [sys.executable, "-m", "support.kills", str(platform.paths.base), "--kills", "20", "--seed", "1"]
    folder = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, folder.parent / "scripts")))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    attempts = [json.loads(line) for line in done.stdout.splitlines()]
    logs = "\n".join(f"{one['moment']}\n{one['log']}" for one in attempts)
    assert [one["status"] for one in attempts if not one["killed"]] == [0] * sum(not one["killed"] for one in attempts)
    assert sum(one["killed"] for one in attempts) >= 10, logs
    assert "warning" not in logs, logs
    # An attempt never starts before the position of the one before it.
    positions = re.findall(r"from checkpoint-(\d+-\d+)", logs)
    assert len(positions) >= 5
    assert positions == sorted(positions)
    assert results(Job(platform.paths, 0, logs)) == expected, logs
