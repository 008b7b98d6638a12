"""Trace files of steps and phases, readable by smdebug as framework metrics.

Named as smdebug's writer does: ``framework/pevents/YYYYMMDDHH/<end in µs>_<node>_pythontimeline.json``. The format is
Chrome trace events, with one process for each kind of event. Files are written between epochs, not at each step.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Literal

from classifier.callbacks import Mode, Phase

_MODES = {"train": "TRAIN", "validation": "EVAL", "test": "PREDICT"}
_PHASES = {
    "data": "DataLoaderIter",
    "transfer": "HostToDevice",
    "forward": "Forward",
    "backward": "Backward",
    "optimizer": "Optimizer",
    "checkpoint": "Checkpoint",
}
_FILE_S, _FILE_EVENTS = 60, 50_000
# In a long training, only every hundredth step after the first 10,000 is written, to bound the files' size.
_NUM_FULL, _STRIDE = 10_000, 100


class Timeline:
    """Writer of events, in files that each cover a minute or more.

    It never raises: the last error, if there was one, is in ``failure``.
    """

    def __init__(self, folder: Path, node: str) -> None:
        self._folder, self._node = folder / "framework" / "pevents", f"{os.getpid()}-{node}"
        self._base_us = int(time.time() * 1e6)
        self._events: list[tuple[str, int, int, int]] = []
        self._written_at = time.monotonic()
        self.failure: OSError | None = None

    def add(self, what: Phase | Literal["step"], mode: Mode, step: int, start_s: float, seconds: float) -> None:
        """Add an event of a step. ``start_s`` is a Unix time; ``seconds`` is the duration."""
        if step < _NUM_FULL or step % _STRIDE == 0:
            name = f"Step:ModeKeys.{_MODES[mode]}" if what == "step" else f"{_PHASES[what]}-{_MODES[mode]}"
            self._events.append((name, step, int(start_s * 1e6), int(seconds * 1e6)))

    def flush_if_due(self) -> None:
        """Write a file if the last is over a minute old or many events are waiting."""
        if time.monotonic() - self._written_at > _FILE_S or len(self._events) > _FILE_EVENTS:
            self.flush()

    def flush(self) -> None:
        """Write the waiting events to a new file; on an OSError they are dropped."""
        self._written_at = time.monotonic()
        try:
            if self._events:
                self._write()
        except OSError as error:
            self.failure = error
        self._events.clear()

    def _write(self) -> None:
        end = max(start + duration for _, _, start, duration in self._events)
        hour = time.strftime("%Y%m%d%H", time.gmtime(end / 1e6))
        path = self._folder / hour / f"{end}_{self._node}_pythontimeline.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",\n".join(["[" + json.dumps(self._header()), *self._lines()]) + "\n]\n", encoding="utf-8")

    def _header(self) -> dict[str, object]:
        start = {"start_time_since_epoch_in_micros": self._base_us}
        return {"name": "process_name", "ph": "M", "pid": 0, "args": start}

    def _lines(self) -> list[str]:
        """Each kind of event is a process, which is named before its first event."""
        pids = {name: 1 + index for index, name in enumerate(dict.fromkeys(event[0] for event in self._events))}
        named = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}} for name, pid in pids.items()]
        events = [
            {"name": name, "pid": pids[name], "ph": "X", "ts": start - self._base_us, "dur": duration,
             "args": {"step_num": step}}
            for name, step, start, duration in self._events
        ]  # fmt: skip
        return [json.dumps(line) for line in (*named, *events)]
