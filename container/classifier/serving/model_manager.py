"""Multi-model serving: models loaded on request, the least recently used evicted when memory runs short."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from classifier.serving.errors import ModelExistsError, OutOfMemoryError, RequestError, UnknownModelError
from classifier.serving.predictor import Predictor

# The weights as read from the artifact, once more in the engine's layout, and room for its activations.
MEMORY_FACTOR = 3
MEMORY_BASE = 64 * 1024 * 1024


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model: its opaque name, its folder as the platform named it, and its predictor."""

    name: str
    url: str
    predictor: Predictor


class ModelManager:
    """The loaded models, the least recently used first.

    Args:
        root: the only folder whose models may be loaded.
        open_model: loads a model by its name and the folder of its artifact.
        available: returns the bytes of memory that are free now.
    """

    def __init__(self, root: Path, open_model: Callable[[str, Path], Predictor], available: Callable[[], int]) -> None:
        self._root = root
        self._open = open_model
        self._available = available
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def load(self, name: str, url: str) -> LoadedModel:
        """Load a model, evicting others if memory is short.

        Args:
            name: the name to serve it under.
            url: path of its folder, below ``root``.

        Raises:
            ModelExistsError: a model of this name is already loaded.
            RequestError: the url is outside ``root``.
            ArtifactError: the folder has no model, or a damaged one.
            OutOfMemoryError: it does not fit, even with every other model evicted.
        """
        folder = self._resolve(url)
        # One at a time: two concurrent loads would count the same free memory.
        with self._loading:
            self._check_name_is_free(name)
            self._make_room(_needed(folder))
            try:
                predictor = self._open(name, folder)
            except MemoryError:
                raise OutOfMemoryError(f"not enough memory for the model {name!r}") from None
            with self._lock:
                self._models[name] = LoadedModel(name, url, predictor)
                return self._models[name]

    def get(self, name: str) -> LoadedModel:
        """Return a loaded model and mark it as the most recently used.

        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._lock:
            if name not in self._models:
                raise UnknownModelError(f"no model {name!r} is loaded")
            self._models.move_to_end(name)
            return self._models[name]

    def unload(self, name: str) -> LoadedModel:
        """Unload a model after it has answered its pending requests.

        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._lock:
            model = self._models.pop(name, None)
        if model is None:
            raise UnknownModelError(f"no model {name!r} is loaded")
        model.predictor.close()
        return model

    def all(self) -> list[LoadedModel]:
        """The loaded models, sorted by name."""
        with self._lock:
            return sorted(self._models.values(), key=lambda one: one.name)

    def is_answering(self) -> bool:
        """Whether every loaded model's engine works; True without models."""
        return all(one.predictor.is_answering() for one in self.all())

    def _resolve(self, url: str) -> Path:
        folder = Path(url).resolve()
        if not folder.is_relative_to(self._root.resolve()):
            raise RequestError(f"the url must be a folder below {self._root}")
        return folder

    def _check_name_is_free(self, name: str) -> None:
        with self._lock:
            if name in self._models:
                raise ModelExistsError(f"a model {name!r} is already loaded")

    def _make_room(self, needed: int) -> None:
        while self._available() < needed:
            with self._lock:
                oldest = next(iter(self._models), None)
            if oldest is None:
                raise OutOfMemoryError(f"the model needs about {needed:,} bytes; {self._available():,} are free")
            self.unload(oldest)


def available_memory() -> int:
    """Bytes of memory that this process can still allocate: the machine's, or what its container's limit leaves."""
    free = _meminfo_available()
    limit, used = _read_number("/sys/fs/cgroup/memory.max"), _read_number("/sys/fs/cgroup/memory.current")
    return free if limit is None or used is None else max(min(free, limit - used), 0)


def _needed(folder: Path) -> int:
    weights = sum(path.stat().st_size for path in folder.glob("*") if path.suffix in (".bin", ".safetensors"))
    return MEMORY_BASE + MEMORY_FACTOR * weights


def _meminfo_available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        # Not Linux, so not the platform: free memory is unknown, and no model is refused.
        return 1 << 62
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 1 << 62)


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
