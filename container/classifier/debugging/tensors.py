"""Reader of saved tensors and their reductions, from a folder or from S3.

Each step's file is read once, as a whole; smdebug's own reader opens the file again for each tensor. A damaged file is
skipped and counted: a training that was killed leaves its last one incomplete.
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from classifier.debugging.facts import FACTS_FILE, Facts
from classifier.debugging.library import (
    IndexReader,
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
    silence,
)
from classifier.errors import DataError

Array = np.ndarray
# Rules compare a step with those before it; the rest, up to a size, is for the readers that follow the rules.
_NUM_CACHED_STEPS, _CACHED_BYTES = 4, 64 << 20
_PREFIX = "smdebug/reductions/"
_REDUCTIONS = {
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
    """Return smdebug's trial of a folder or an S3 prefix. It looks for new steps only in ``refresh_data()``.

    Raises:
        DataError: the folder or prefix has no tensors of smdebug, or they cannot be read.
    """
    silence()
    on_s3, bucket, prefix = is_s3(path)
    try:
        if on_s3:
            request = ListRequest(bucket, f"{str(prefix).rstrip('/')}/collections/")
            found = bool(S3Handler.list_prefixes([request])[0])
        else:
            found = any((Path(path) / "collections").rglob("*collections.json"))
    except Exception as error:
        raise DataError(f"cannot read {path}: {error}") from None
    # smdebug would wait for the collections forever.
    if not found:
        raise DataError(
            f"{path} has no tensors of smdebug; give the folder or S3 prefix that contains collections/ and index/"
        )
    try:
        with isolated(), _tolerant_index() as damaged:
            trial: Any = create_trial(path)
    except Exception as error:
        raise DataError(f"cannot read the tensors in {path}: {type(error).__name__}: {error}") from None
    trial.dynamic_refresh = False
    trial.damaged_indices = damaged
    return trial


@contextmanager
def _tolerant_index() -> Iterator[set[int]]:
    """Let smdebug's reader skip damaged files of the index; yields the steps whose files these are."""
    damaged: set[int] = set()
    reader: Any = IndexReader
    original = reader._update_tensors_from_json

    def update(self: Any, known: Any, step: Any, *others: Any) -> Any:
        try:
            return original(self, known, step, *others)
        except Exception:
            damaged.add(int(step))
            return known

    reader._update_tensors_from_json = update
    try:
        yield damaged
    finally:
        reader._update_tensors_from_json = original


class Tensors:
    """The saved tensors of a trial, by global step: training and evaluation steps in the order of execution.

    Attributes:
        damaged: global steps whose files cannot be read.
    """

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.damaged: set[int] = set(getattr(trial, "damaged_indices", ()))
        self._names: dict[tuple[object, ...], list[str]] = {}
        self._name_sets: dict[frozenset[str], frozenset[str]] = {}
        self._saved: dict[int, frozenset[str]] = {}
        self._read: OrderedDict[int, dict[str, Array]] = OrderedDict()
        self._num_bytes = 0
        self._figures: tuple[int, dict[str, dict[str, float]]] | None = None
        self._times: dict[int, float] = {}

    @classmethod
    def of(cls, trial: Any) -> "Tensors":
        """Return the trial's reader, which all rules share."""
        if not hasattr(trial, "reader_of_steps"):
            trial.reader_of_steps = cls(trial)
        return trial.reader_of_steps

    @cached_property
    def facts(self) -> Facts:
        """What was recorded beside the tensors; empty if nothing was."""
        try:
            return Facts.model_validate_json(_read(f"{str(self.trial.path).rstrip('/')}/{FACTS_FILE}"))
        except Exception:  # another program saved the tensors, or a training that was killed left half a file
            return Facts()

    def refresh(self) -> None:
        """Look for steps that were saved since the last call."""
        with _tolerant_index() as damaged:
            self.trial.refresh_data()
        self.damaged |= damaged
        self._saved = {}
        self.__dict__.pop("facts", None)

    def steps(self, mode: ModeKeys | None = None) -> list[int]:
        """Return the global steps with saved tensors, of one mode or of all."""
        steps = sorted(set(self.trial.global_step_to_tensors_map) - self.damaged)
        return steps if mode is None else [step for step in steps if self.mode(step) == mode]

    def mode(self, step: int) -> ModeKeys:
        """Return the mode of a global step."""
        return self.trial._global_to_mode[step][0]

    def training_step(self, step: int) -> int:
        """Return the training step of a global step, from 0; of an evaluation, the last saved training step before."""
        for earlier in range(step, -1, -1):
            mode, count = self.trial._global_to_mode.get(earlier, (None, 0))
            if mode in (ModeKeys.TRAIN, ModeKeys.GLOBAL):
                return int(count)
        return 0

    def names(self, step: int, *, regex: str | None = None, collections: tuple[str, ...] = ()) -> list[str]:
        """Return the sorted names of a step's tensors that match a regex or, without one, are in the collections."""
        saved = self._saved_at(step)
        key = (saved, regex, collections)
        # Most steps save the same tensors, so each question is answered once, not once a step.
        if key not in self._names:
            self._names[key] = sorted(self._select(saved, regex, collections))
        return self._names[key]

    def _saved_at(self, step: int) -> frozenset[str]:
        if step not in self._saved:
            names = frozenset(self.trial.global_step_to_tensors_map.get(step, ()))
            self._saved[step] = self._name_sets.setdefault(names, names)
        return self._saved[step]

    def _select(self, saved: frozenset[str], regex: str | None, collections: tuple[str, ...]) -> list[str]:
        if regex is not None:
            return [name for name in saved if match_inc(name, [regex])]
        known = self.trial.collections()
        found = [known[name] for name in collections if name in known]
        members = {name for item in found for name in item.tensor_names}
        regexes = [regex for item in found for regex in item.include_regex or []]
        return [name for name in saved if name in members or match_inc(name, regexes)]

    def value(self, name: str, step: int) -> Array | None:
        """Return the tensor; None if it was not saved in full."""
        return self._values(step).get(name)

    def reduction(self, name: str, step: int, what: str) -> float | None:
        """Return ``mean``, ``abs_mean``, ``variance``, ``l2`` …, saved or computed; None if neither is possible."""
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
            return float(_REDUCTIONS[kind](np.abs(value) if absolute else value))

    def reductions(self, name: str, step: int) -> dict[str, float]:
        """Return all saved reductions of a tensor, by their names in the file."""
        return self._figures_at(step).get(name, {})

    def _figures_at(self, step: int) -> dict[str, dict[str, float]]:
        """Return the step's saved reductions by tensor."""
        values = self._values(step)
        if self._figures is None or self._figures[0] != step:
            figures: dict[str, dict[str, float]] = {}
            for key, value in values.items():
                if key.startswith(_PREFIX):
                    name = key.removeprefix(_PREFIX).partition("/")[2]
                    figures.setdefault(name, {})[key] = float(np.asarray(value).ravel()[0])
            self._figures = step, figures
        return self._figures[1]

    def remember(self, steps: Mapping[int, tuple[dict[str, Array], float]]) -> None:
        """Accept tensors that were just written, and when, so that they need not be read back."""
        for step, (values, written_s) in steps.items():
            self._read[step] = values
            self._times.setdefault(step, written_s)
            self._num_bytes += _size(values)

    def written_at(self, step: int) -> float | None:
        """Return the Unix time in seconds at which the step's first tensor was written; None if it cannot be read."""
        self._values(step)
        return self._times.get(step)

    def _values(self, step: int) -> dict[str, Array]:
        if step not in self._read:
            self._read[step] = self._load(step)
            self._num_bytes += _size(self._read[step])
            while len(self._read) > _NUM_CACHED_STEPS and self._num_bytes > _CACHED_BYTES:
                self._num_bytes -= _size(self._read.popitem(last=False)[1])
        return self._read[step]

    def _load(self, step: int) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for worker in sorted(self.trial.workers_for_global_step.get(step, ())):
            path = TensorFileLocation(step_num=step, worker_name=worker).get_file_location(self.trial.path)
            try:
                read, written_s = _read_step(path)
            except Exception:  # incomplete, missing, or of another format
                self.damaged.add(step)
                return {}
            self._times.setdefault(step, written_s)
            # With several workers, the first one's value counts, as in smdebug's own reader.
            values = read | values
        return values


def _read_step(path: str) -> tuple[dict[str, Array], float]:
    """Return the tensors in a step's file, and when it was written.

    Raises:
        Exception: the file is damaged, or has no tensors.
    """
    values: dict[str, Array] = {}
    written_s: float | None = None
    events: Any = TensorReader(_read(path)).read_events()
    for event in events:
        written_s = written_s or event.wall_time or time.time()
        for item in event.summary.value:
            values.setdefault(item.tag, np.asarray(get_tensor_data(item.tensor)))
    if written_s is None or not values:
        raise ValueError(f"{path} is empty")
    return values, written_s


def _size(values: dict[str, Array]) -> int:
    return sum(value.nbytes for value in values.values())


def _read(path: str) -> bytes:
    if is_s3(path)[0]:
        content: Any = S3Handler.get_objects([ReadObjectRequest(path)])[0]
        return content
    return Path(path).read_bytes()
