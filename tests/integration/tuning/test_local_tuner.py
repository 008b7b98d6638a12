"""The local tuner with real training jobs of a quick program."""

import shutil
from pathlib import Path

import pytest

from launch.tuning.ranges import Choice, Ranges
from launch.tuning.request import TuningSpec
from support.quick_trials import quick_spec, quick_study, quick_tuner


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tuning job that has run its three trials; a test that continues it works on a copy."""
    folder = tmp_path_factory.mktemp("finished")
    assert quick_tuner(folder, quick_spec(3)).run() == "all 3 trials are done"
    return folder


def test_all_trials_run_and_their_last_objective_counts(finished: Path) -> None:
    trials = quick_study(finished, quick_spec(3)).trials()
    assert [trial.status for trial in trials] == ["Completed"] * 3
    for trial in trials:
        lr = float(trial.parameters["lr"])
        assert trial.history == pytest.approx([lr * epoch / 10 for epoch in (1, 2, 3, 4)], abs=1e-4)
        assert trial.objective == trial.history[-1]
        assert trial.seconds is not None


def test_failing_trial_is_recorded_with_its_reason(tmp_path: Path) -> None:
    tuner = quick_tuner(tmp_path, quick_spec(4, low=0.6, high=1.1, strategy="random"))
    tuner.run()
    trials = tuner.study.trials()
    assert len(trials) == 4
    failed = [trial for trial in trials if float(trial.parameters["lr"]) > 0.9]
    assert 0 < len(failed) < 4
    assert {(trial.status, trial.failure, trial.objective) for trial in failed} == {
        ("Failed", "ConfigError: lr is too high", None)
    }


def test_tuning_ends_when_the_first_five_trials_fail(tmp_path: Path) -> None:
    tuner = quick_tuner(tmp_path, quick_spec(20, low=0.91, high=0.99, parallel=1))
    assert tuner.run() == "no trial succeeded in 5 attempts"


def test_trial_without_a_finite_objective_is_a_failed_trial(tmp_path: Path) -> None:
    tuner = quick_tuner(tmp_path, quick_spec(1, objective="validation:loss"))
    tuner.run()
    (trial,) = tuner.study.trials()
    assert (trial.status, trial.failure) == ("Failed", "no finite validation:loss in its log")


def test_trial_that_falls_behind_is_stopped(tmp_path: Path) -> None:
    quick_tuner(tmp_path, quick_spec(5, low=0.5, early_stopping=True)).run()
    # Any value in this range is worse than all of those, from the first epoch on.
    hopeless = quick_tuner(tmp_path, quick_spec(6, low=0.1, high=0.2, early_stopping=True), epoch_s=1.0)
    hopeless.run()
    (last,) = hopeless.study.trials()[5:]
    assert last.status == "Stopped"
    assert 1 <= len(last.history) < 4
    assert last.objective == last.history[-1]


def test_tuning_ends_when_the_target_is_reached(tmp_path: Path) -> None:
    tuner = quick_tuner(tmp_path, quick_spec(20, target=0.01, parallel=1))
    assert tuner.run() == "the target 0.01 is reached"
    assert len(tuner.study.trials()) == 1


def test_grid_tries_every_point_once(tmp_path: Path) -> None:
    entry = {"Name": "lr", "Values": ["0.1", "0.2", "0.3"]}
    ranges = Ranges({"CategoricalParameterRanges": [entry]}, (Choice("lr", ("0.1", "0.2", "0.3")),))
    tuner = quick_tuner(tmp_path, TuningSpec(name="quick", ranges=ranges, strategy="grid", jobs=None))
    tuner.run()
    assert sorted(trial.parameters["lr"] for trial in tuner.study.trials()) == ["0.1", "0.2", "0.3"]


def test_hyperband_completes_all_trials(tmp_path: Path) -> None:
    tuner = quick_tuner(tmp_path, quick_spec(5, strategy="hyperband"))
    assert tuner.run() == "all 5 trials are done"
    assert all(trial.status in ("Completed", "Stopped") for trial in tuner.study.trials())


def test_complete_tuning_starts_nothing_unless_there_are_more_jobs(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = set((folder / "sagemaker" / "training-jobs").iterdir())
    quick_tuner(folder, quick_spec(3)).run()
    assert set((folder / "sagemaker" / "training-jobs").iterdir()) == before
    more = quick_tuner(folder, quick_spec(4))
    more.run()
    assert len(more.study.trials()) == 4


def test_warm_start_adds_earlier_trials_without_counting_them(finished: Path, tmp_path: Path) -> None:
    trials = quick_study(finished, quick_spec(3)).trials()
    tuner = quick_tuner(tmp_path / "warm", quick_spec(2, low=0.1, high=0.7))
    fitting = sum(float(trial.parameters["lr"]) <= 0.7 for trial in trials)
    for _ in range(2):
        assert tuner.study.add_parent("earlier", trials) == fitting
    tuner.run()
    assert len(tuner.study.trials()) == 2
    inherited = [trial for trial in tuner.study._study.trials if "parent" in trial.user_attrs]
    assert len(inherited) == fitting
