"""The profiler, a training callback: measures from before torch is loaded to the last step, then evaluates the rules.

It never fails a training: its errors are warnings.
"""

from __future__ import annotations

import os
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.callbacks import Callback, Console, EpochResult, Mode, Phase, TrainingContext
from classifier.contract.config import ProfilerConfig, TrainingConfig
from classifier.contract.findings import write_findings
from classifier.contract.paths import Paths
from classifier.host import has_gpu, num_cores
from classifier.profiling.operators import OperatorRecorder
from classifier.profiling.profile import Profile, summary_lines, write_profile
from classifier.profiling.rules import evaluate
from classifier.profiling.steps import DeviceClock, HostClock, StepTimer
from classifier.profiling.system import Sampler
from classifier.profiling.timeline import Timeline

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def profiled(config: TrainingConfig, paths: Paths, console: Console) -> Iterator[Sequence[Callback]]:
    """Yield the profiler, already sampling the system, if it is requested; else no callback. Sampling stops on exit."""
    profiler = open_profiler(config, paths, console)
    try:
        yield [profiler] if profiler else []
    finally:
        if profiler:
            profiler.close()


def open_profiler(config: TrainingConfig, paths: Paths, console: Console) -> Profiler | None:
    """Start the profiler if ``profilerconfig.json`` or the hyperparameter ``profile`` requests it.

    Returns:
        The profiler; None if it was not requested, or, after a warning, if it cannot start.
    """
    requested = config.profiler is not None and config.profiler.is_enabled
    if not (requested or config.hyperparameters.profile):
        return None
    if not has_gpu():
        # Kineto, the library below torch's profiler, reads this once; it logs an error if there is no GPU.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    try:
        return Profiler(config, paths, console)
    except Exception:
        console.warn(f"cannot start the profiler; training continues without it\n{traceback.format_exc()}")
        return None


class Profiler(Callback):
    """System sampler, step timer and operator recorder, as one callback."""

    def __init__(self, config: TrainingConfig, paths: Paths, console: Console) -> None:
        self._parameters, self._paths, self._console = config.hyperparameters, paths, console
        settings, folder = config.profiler or ProfilerConfig(), profiler_folder(config, paths)
        self._timeline = Timeline(folder, _node(config))
        self._operators = OperatorRecorder(settings.profiling_parameters.operators, folder / "trace.json.gz")
        self._timer: StepTimer | None = None
        self._mode: Mode = "train"
        self._num_images = 0
        self._began_s = time.time()
        self._first_step_s: float | None = None
        self._sampler = Sampler(folder, _node(config), settings.profiling_interval_in_milliseconds / 1000)
        self._sampler.start()

    def close(self) -> None:
        """Stop sampling the system."""
        self._sampler.stop()

    def on_train_begin(self, context: TrainingContext) -> None:
        """Choose the clock of the device, and the steps whose operators are recorded."""
        on_gpu = context.device.type == "cuda"
        self._timer = StepTimer(DeviceClock() if on_gpu else HostClock(), self._timeline)
        self._operators.plan(context.num_epochs, context.steps_per_epoch, on_gpu=on_gpu)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        """Begin a pass over a channel; the first one also ends initialization."""
        self._first_step_s = self._first_step_s or time.time()
        self._timed.exclude(self._operators.end())
        self._mode = mode
        self._timed.begin_pass(mode, number)

    def on_step_begin(self) -> None:
        """Begin a step; in training, start recording operators if their steps begin here."""
        if self._mode == "train":
            self._timed.exclude(self._operators.begin_step(self._timed.number))
        self._timed.begin_step()

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        """Return a context that measures a phase and, while operators are recorded, marks it in the trace."""
        if not self._operators.is_recording:
            return self._timed.phase(name)
        stack = ExitStack()
        stack.enter_context(self._operators.phase(name))
        stack.enter_context(self._timed.phase(name))
        return stack

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:  # noqa: ARG002 - a callback's
        """Count the images of a training batch."""
        if self._mode == "train" and not self._timed.is_disturbed:
            self._num_images += len(labels)

    def on_step_disturbed(self) -> None:
        """Leave the current step out of the profile: its duration is not the training's own."""
        self._timed.disturb()

    def on_step_end(self) -> None:
        """End a step; recording of operators stops after the last of its steps."""
        number, is_recorded = self._timed.number, self._operators.is_recording
        self._timed.end_step(is_usual=not is_recorded)
        if is_recorded:
            self._timed.exclude(self._operators.end_step(number))

    def on_epoch_end(self, result: EpochResult) -> None:  # noqa: ARG002 - a callback's
        """End the pass."""
        self._timed.end_pass()

    def on_test_end(self, metrics: Mapping[str, float]) -> None:  # noqa: ARG002 - a callback's
        """End the pass over the test channel."""
        self._timed.end_pass()

    def on_train_end(self) -> None:
        """Stop measuring, evaluate the rules, write the outputs and print a summary."""
        self._sampler.stop()
        if self._timer is None:
            return
        self._operators.end()
        self._timer.end_pass()
        self._timeline.flush()
        self._warn_about_failures()
        self._report(self._profile(self._timer))

    def _warn_about_failures(self) -> None:
        parts = {"system samples": self._sampler, "operators": self._operators, "steps": self._timeline}
        for name, part in parts.items():
            if part.failure:
                self._console.warn(f"profile is incomplete, {name}: {part.failure}")

    @property
    def _timed(self) -> StepTimer:
        assert self._timer is not None, "on_train_begin comes first"
        return self._timer

    def _profile(self, timer: StepTimer) -> Profile:
        ended_s = time.time()
        workers = self._parameters.num_workers
        return Profile(
            parameters=self._parameters,
            began_s=self._began_s,
            first_step_s=self._first_step_s or ended_s,
            ended_s=ended_s,
            samples=self._sampler.samples,
            steps=timer.table(),
            passes_s=timer.passes_s,
            checkpoint_s=timer.checkpoint_s,
            num_disturbed=timer.num_disturbed,
            disturbed_s=timer.disturbed_s,
            operators=self._operators.operators,
            num_images=self._num_images,
            num_workers=num_cores() if workers == "auto" else workers,
        )

    def _report(self, profile: Profile) -> None:
        findings = evaluate(profile)
        write_findings(self._paths.output_data / "profiler_findings.json", findings)
        write_profile(self._paths.output_data / "profiler.json", profile, self._operators.trace)
        for line in summary_lines(profile, findings):
            self._console.log(f"profiler    {line}")


def profiler_folder(config: TrainingConfig, paths: Paths) -> Path:
    """Return the folder named by ``profilerconfig.json``, which the platform uploads to S3.

    Without that file, ``profiler`` in the job's output data.
    """
    if config.profiler is None:
        return paths.output_data / "profiler"
    return paths.relocate(config.profiler.profiling_parameters.local_path)


def _node(config: TrainingConfig) -> str:
    """The host's name. smdebug's readers open only files of hosts named ``algo-1``, ``algo-2`` and so on."""
    host = config.cluster.current_host
    return host if re.fullmatch(r"algo-\d+", host) else f"algo-{config.cluster.rank + 1}"
