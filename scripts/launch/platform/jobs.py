"""Jobs: their creation, and the watch until they end.

However a command ends, what is known of its job is printed, with the commands that stop it or watch it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore.exceptions import ClientError, ParamValidationError

from aws.errors import CloudError, translate_errors
from commands import interrupts
from launch.platform.monitoring import Record, is_finished, wait
from launch.platform.references import is_refusal
from launch.terminal import print_status


class Monitor(Protocol):
    """Shows a job's progress."""

    def update(self, record: Mapping[str, Any], /) -> None:
        """Show what is new in the job's description."""

    def close(self) -> None:
        """Remove what is shown for the moment only."""


@dataclass
class Job:
    """A job that a command creates, or that exists.

    Attributes:
        program: the command, which begins the messages.
        kind: ``training``, ``transform`` or ``tuning``.
        status_key: the field of the description that has the status.
        describe: fetches the description.
        interval_s: seconds between two polls.
        describe_cost: describes what the job costs while it runs, from the latest description or the request.
        commands: what a user may do with the job, and the commands that do it.
        latest: the latest description; before the first, the request or nothing.
    """

    program: str
    kind: str
    name: str
    status_key: str
    describe: Callable[[], Record]
    interval_s: float
    describe_cost: Callable[[Record], str]
    commands: Mapping[str, str]
    latest: Record = field(default_factory=dict)
    _is_sent: bool = True
    _is_accepted: bool = True

    def run(
        self, monitor: Monitor, send: Callable[[], object] | None = None, *, is_followed: bool = True
    ) -> Record | None:
        """Create the job, and show its progress until it ends.

        Args:
            send: sends the request that creates the job; None if it exists. Ctrl-C waits for the answer, unless it is
                pressed twice.
            is_followed: whether to wait for the end; if not, the job's commands are printed.

        Returns:
            The latest description, or None after Ctrl-C, which leaves the job running.

        Raises:
            CloudError: AWS refused a request or can't be reached.
            KeyboardInterrupt: Ctrl-C was pressed before the job was created.
        """
        try:
            with self._announced(monitor):
                if send:
                    self._create(send)
                print(f"job         {self.name}", flush=True)
                if is_followed:
                    return self._wait(monitor)
                self.print_commands()
                return self.latest
        except KeyboardInterrupt:
            if not self._is_sent:
                raise
            return None

    def _create(self, send: Callable[[], object]) -> None:
        self._is_sent = self._is_accepted = False
        with translate_errors(f"{self.kind} job {self.name}"), interrupts.deferred():
            self._is_sent = True
            try:
                send()
            except ClientError as error:
                self._is_sent = not is_refusal(error)
                raise
            except ParamValidationError:
                self._is_sent = False
                raise
            self._is_accepted = True

    def _wait(self, monitor: Monitor) -> Record:
        def show(record: Record) -> None:
            self.latest = record
            monitor.update(record)

        return wait(
            self.describe,
            what=f"{self.kind} job {self.name}",
            done=lambda record: is_finished(record, self.status_key),
            each=show,
            interval_s=self.interval_s,
        )

    def print_commands(self) -> None:
        """Print what a user may do with the job."""
        width = max(map(len, self.commands)) + 1
        for purpose, command in self.commands.items():
            print_status(f"  {f'{purpose}:':<{width}} {command}")

    @contextmanager
    def _announced(self, monitor: Monitor) -> Iterator[None]:
        """Print what is known of the job if the block is interrupted."""
        try:
            yield
        except (KeyboardInterrupt, CloudError, OSError):
            with interrupts.finishing():
                monitor.close()
                if self._is_sent:
                    self._print_state()
            raise
        finally:
            monitor.close()

    def _print_state(self) -> None:
        cost = f": {self.describe_cost(self.latest)}" if self.latest else ""
        if self._is_accepted:
            print_status(f"{self.program}: stopped watching; the job keeps running{cost}")
        else:
            print_status(f"{self.program}: job {self.name} may have been created, and would run{cost}")
        self.print_commands()
