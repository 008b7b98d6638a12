"""Several models behind one endpoint: loaded when told, the least recently used unloaded when memory runs short."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from classifier.serving.errors import ModelExistsError, OutOfMemoryError, RequestError, UnknownModelError
from classifier.serving.predictor import Predictor

# Weights as they lie in the artifact, once more as the engine lays them out, and room for its activations.
MEMORY_FACTOR = 3
MEMORY_BASE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Shelved:
    """A loaded model: its opaque name, the folder as the platform named it, and its predictor."""

    name: str
    url: str
    predictor: Predictor


class Shelf:
    """The loaded models, the least recently used first.

    Args:
        root: the only folder whose models may be loaded.
        open_model: loads the artifact in a folder.
        available: bytes of memory that are free now.
    """

    def __init__(self, root: Path, open_model: Callable[[Path], Predictor], available: Callable[[], int]) -> None:
        self._root = root
        self._open = open_model
        self._available = available
        self._models: OrderedDict[str, Shelved] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def load(self, name: str, url: str) -> Shelved:
        """
        Raises:
            ModelExistsError: a model of this name is loaded.
            RequestError: the url leads out of the models' folder.
            ArtifactError: the folder holds no model.
            OutOfMemoryError: it would not fit, even with every other model unloaded.
        """
        folder = self._confine(url)
        # One at a time: two would count the same free memory.
        with self._loading:
            self._refuse_known(name)
            self._make_room(_needed(folder))
            try:
                predictor = self._open(folder)
            except MemoryError:
                raise OutOfMemoryError(f"no memory for the model {name!r}") from None
            with self._lock:
                self._models[name] = Shelved(name, url, predictor)
                return self._models[name]

    def get(self, name: str) -> Shelved:
        """
        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._lock:
            if name not in self._models:
                raise UnknownModelError(f"no model {name!r} is loaded")
            self._models.move_to_end(name)
            return self._models[name]

    def unload(self, name: str) -> Shelved:
        """Unload a model, once it has answered what it was asked.

        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._lock:
            shelved = self._models.pop(name, None)
        if shelved is None:
            raise UnknownModelError(f"no model {name!r} is loaded")
        shelved.predictor.close()
        return shelved

    def all(self) -> list[Shelved]:
        """The loaded models by name."""
        with self._lock:
            return sorted(self._models.values(), key=lambda one: one.name)

    def is_answering(self) -> bool:
        return all(one.predictor.is_answering() for one in self.all())

    def _confine(self, url: str) -> Path:
        folder = Path(url).resolve()
        if not folder.is_relative_to(self._root.resolve()):
            raise RequestError(f"the url should lie in {self._root}")
        return folder

    def _refuse_known(self, name: str) -> None:
        with self._lock:
            if name in self._models:
                raise ModelExistsError(f"a model {name!r} is loaded already")

    def _make_room(self, needed: int) -> None:
        while self._available() < needed:
            with self._lock:
                oldest = next(iter(self._models), None)
            if oldest is None:
                raise OutOfMemoryError(f"the model needs about {needed:,} bytes; {self._available():,} are free")
            self.unload(oldest)


def _needed(folder: Path) -> int:
    weights = sum(path.stat().st_size for path in folder.glob("*") if path.suffix in (".bin", ".safetensors"))
    return MEMORY_BASE + MEMORY_FACTOR * weights


def available_memory() -> int:
    """Bytes of memory that this process can still take: the machine's, or what its container leaves."""
    free = _meminfo_available()
    limit, used = _read_number("/sys/fs/cgroup/memory.max"), _read_number("/sys/fs/cgroup/memory.current")
    return free if limit is None or used is None else max(min(free, limit - used), 0)


def _meminfo_available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        # Not Linux, so not the platform: nothing is known, and nothing is refused.
        return 1 << 62
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 1 << 62)


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
