"""Saved tensors → arrays and figures. Each step's file is read once, whole, from a folder or from S3.

Reading one tensor at a time, as smdebug does, opens the file anew for each.
"""

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from classifier.debugging.library import (
    ListRequest,
    ModeKeys,
    ReadObjectRequest,
    S3Handler,
    TensorFileLocation,
    TensorReader,
    create_trial,
    get_reduction_tensor_name,
    get_tensor_data,
    is_s3,
    isolated,
    match_inc,
    quieten,
)
from classifier.errors import DataError

Array = np.ndarray
_STEPS_KEPT = 4
_FIGURES = {
    "mean": np.mean,
    "variance": np.var,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "sum": np.sum,
    "l1": lambda array: np.abs(array).sum(),
    "l2": lambda array: np.linalg.norm(array.astype(np.float64).ravel()),
}


def open_trial(path: str) -> Any:
    """smdebug's view of a folder or an S3 prefix of tensors; it looks for new steps only when told to.

    Raises:
        DataError: there are no tensors of smdebug there.
    """
    quieten()
    on_s3, bucket, prefix = is_s3(path)
    try:
        if on_s3:
            request = ListRequest(bucket, f"{str(prefix).rstrip('/')}/collections/")
            found = bool(S3Handler.list_prefixes([request])[0])
        else:
            found = any((Path(path) / "collections").rglob("*collections.json"))
    except Exception as error:
        raise DataError(f"{path} can't be read: {error}") from None
    # smdebug would wait for them forever.
    if not found:
        raise DataError(
            f"{path} holds no tensors of smdebug: name the folder or S3 prefix that holds collections/ and index/"
        )
    try:
        with isolated():
            trial: Any = create_trial(path)
    except Exception as error:
        raise DataError(f"{path}: the tensors can't be read: {type(error).__name__}: {error}") from None
    trial.dynamic_refresh = False
    return trial


class Tensors:
    """What was saved in a trial, by global step: training's and evaluation's steps in the order they were taken."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self._read: OrderedDict[int, dict[str, Array]] = OrderedDict()
        self._times: dict[int, float] = {}

    @classmethod
    def of(cls, trial: Any) -> "Tensors":
        """One reader a trial, for all rules."""
        if not hasattr(trial, "reader_of_steps"):
            trial.reader_of_steps = cls(trial)
        return trial.reader_of_steps

    def steps(self, mode: ModeKeys | None = None) -> list[int]:
        """Global steps that have something saved, of one mode or of all."""
        steps = sorted(self.trial.global_step_to_tensors_map)
        return steps if mode is None else [step for step in steps if self.mode(step) == mode]

    def mode(self, step: int) -> ModeKeys:
        return self.trial._global_to_mode[step][0]

    def training_step(self, step: int) -> int:
        """The step as the training counts: its own from 0, an evaluation's is that of the last saved step before it."""
        for earlier in range(step, -1, -1):
            mode, count = self.trial._global_to_mode.get(earlier, (None, 0))
            if mode in (ModeKeys.TRAIN, ModeKeys.GLOBAL):
                return int(count)
        return 0

    def names(self, step: int, *, regex: str | None = None, collections: tuple[str, ...] = ()) -> list[str]:
        """The tensors of a step that a regex finds or a collection holds, in order."""
        saved = self.trial.global_step_to_tensors_map.get(step, ())
        if regex is not None:
            return sorted(name for name in saved if match_inc(name, [regex]))
        known = self.trial.collections()
        found = [known[name] for name in collections if name in known]
        return sorted(
            name
            for name in saved
            if any(name in one.tensor_names or match_inc(name, one.include_regex or []) for one in found)
        )

    def value(self, name: str, step: int) -> Array | None:
        """The tensor, or None where only figures of it were saved."""
        return self._values(step).get(name)

    def figure(self, name: str, step: int, what: str) -> float | None:
        """``mean``, ``abs_mean``, ``variance``, ``l2`` …: saved, or computed from the tensor; None where neither is."""
        kind = what.removeprefix("abs_")
        absolute = kind != what
        saved = self._values(step).get(get_reduction_tensor_name(name, kind, absolute))
        if saved is not None:
            return float(np.asarray(saved).ravel()[0])
        value = self.value(name, step)
        if value is None or value.dtype.kind not in "fiub" or value.size == 0:
            if kind == "variance":
                deviation = self._values(step).get(get_reduction_tensor_name(name, "std", absolute))
                return None if deviation is None else float(np.asarray(deviation).ravel()[0]) ** 2
            return None
        with np.errstate(all="ignore"):
            return float(_FIGURES[kind](np.abs(value) if absolute else value))

    def figures(self, name: str, step: int) -> dict[str, float]:
        """All figures that were saved of a tensor, by their names in the file."""
        ending = f"/{name}"
        return {
            key: float(np.asarray(value).ravel()[0])
            for key, value in self._values(step).items()
            if key.startswith("smdebug/reductions/") and key.endswith(ending)
        }

    def written_at(self, step: int) -> float:
        """Seconds since the epoch, of the first tensor of the step."""
        self._values(step)
        return self._times.get(step, 0.0)

    def _values(self, step: int) -> dict[str, Array]:
        if step not in self._read:
            self._read[step] = self._load(step)
            while len(self._read) > _STEPS_KEPT:
                self._read.popitem(last=False)
        return self._read[step]

    def _load(self, step: int) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for worker in sorted(self.trial.workers_for_global_step.get(step, ())):
            path = TensorFileLocation(step_num=step, worker_name=worker).get_file_location(self.trial.path)
            events: Any = TensorReader(_read(path)).read_events()
            for event in events:
                self._times.setdefault(step, event.wall_time or time.time())
                for item in event.summary.value:
                    # Several workers: the first one's, as smdebug's own readers answer.
                    values.setdefault(item.tag, np.asarray(get_tensor_data(item.tensor)))
        return values


def _read(path: str) -> bytes:
    if is_s3(path)[0]:
        content: Any = S3Handler.get_objects([ReadObjectRequest(path)])[0]
        return content
    return Path(path).read_bytes()
