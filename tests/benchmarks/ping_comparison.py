"""Pings of `serve` beside those of bare servers under the same load, in the same run.

Client and servers share the cores, and a machine may be busy with other things, so a time alone says little. A bare
server is busy with the same client on the same machine; `bare_side` is the program.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import inf, isinf
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar, get_args

from benchmarks.bare_side import program
from support.pings import Pings, pinging
from support.servers import ServerProcess, running

# Always good enough.
PING_S = 0.2
MAX_RATIO = 1.5
# Never good enough, whatever the bare server takes: the platform waits no longer.
PLATFORM_S = 2.0
OURS = "serve"
# A server and what it does with bodies, as `bare_side` takes them.
Rival = Literal["gunicorn reading", "aiohttp reading", "gunicorn classifying"]

Result = TypeVar("Result")


class Comparison:
    """Rounds in which `serve` and bare servers get the same load in turn, each first in another round.

    Args:
        name: of the load.
        ours: `serve`.
        bare: the bare servers by name; `serve` is judged by the first, the others are for the report.
    """

    def __init__(self, name: str, ours: ServerProcess, bare: Mapping[str, ServerProcess]) -> None:
        self.name = name
        self._servers = {OURS: ours, **bare}
        self._judge = next(iter(bare))
        self._rounds: list[dict[str, Pings]] = []

    def measure(self, load: Callable[[ServerProcess], Result]) -> Result:
        """Add a round, and return what the load on `serve` returned."""
        shift = len(self._rounds) % len(self._servers)
        names = [*self._servers][shift:] + [*self._servers][:shift]
        results, round_ = {}, {}
        for name in names:
            with pinging(self._servers[name].port) as pings:
                results[name] = load(self._servers[name])
            round_[name] = pings
        self._rounds.append(round_)
        return results[OURS]

    def line(self) -> str:
        """The slowest ping and the 99th percentile of each server, and the ratio that is judged; medians of rounds."""
        sides = [
            f"{name} {self._median(name, lambda one: one.max_s):.0f} ms "
            f"(p99 {self._median(name, lambda one: one.p99_s):.0f})"
            for name in self._servers
        ]
        ratio = median(one[OURS].max_s / one[self._judge].max_s for one in self._rounds)
        return f"slowest ping: {', '.join(sides)}; {OURS} ÷ {self._judge} {ratio:.2f}"

    def problems(self) -> list[str]:
        """What is wrong: a ping without an answer, or pings that are too slow in most rounds."""
        if any(isinf(one[OURS].max_s) for one in self._rounds):
            return [f"{self.name}: a ping was not answered with 200"]
        excess = median(one[OURS].max_s / slowest_allowed(one[self._judge].max_s) for one in self._rounds)
        return [f"{self.name}: {excess:.2f} × the slowest ping allowed. {self.line()}"] if excess > 1 else []

    def _median(self, name: str, figure: Callable[[Pings], float]) -> float:
        return median(figure(one[name]) for one in self._rounds) * 1e3


def slowest_allowed(bare_s: float) -> float:
    """The longest that a ping of `serve` may take, in seconds, where the bare server's slowest took ``bare_s``."""
    return max(PING_S, min(bare_s * MAX_RATIO if bare_s < inf else inf, PLATFORM_S))


class BareServers:
    """The bare servers, all running: idle ones take no time from the others.

    Args:
        base: laid out as /opt/ml, with the artifact in ``model``.
        stack: stops them.
    """

    def __init__(self, base: Path, stack: ExitStack) -> None:
        self._servers = {
            rival: stack.enter_context(running(base, base / f"{rival}.log", program=program(*rival.split())))
            for rival in get_args(Rival)
        }

    def beside(self, ours: ServerProcess, name: str, rivals: Sequence[Rival]) -> Comparison:
        """Compare `serve` with some of the bare servers, of which the first judges."""
        return Comparison(name, ours, {rival: self._servers[rival] for rival in rivals})
