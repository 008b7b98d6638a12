"""Multi-model serving: models that the platform loads and unloads while others answer."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from classifier.engine.opening import gpu_memory_needed, memory_needed
from classifier.errors import is_out_of_memory
from classifier.serving.errors import ModelExistsError, OutOfMemoryError, RequestError, UnknownModelError
from classifier.serving.predictor import Predictor
from classifier.vision.manifest import ModelManifest

MIB = 1024 * 1024
# Characters of a caller's text that a message repeats.
_MAX_SHOWN = 200


@dataclass(eq=False)
class LoadedModel:
    """A loaded model: its opaque name, its folder as the platform named it, its predictor, and its pending requests."""

    name: str
    url: str
    predictor: Predictor
    num_pending: int = 0


class ModelManager:
    """The loaded models. Only the platform unloads: it knows which model it needs next.

    Args:
        root: the only folder whose models may be loaded.
        open_model: loads a model by its name and the folder of its artifact.
        available: returns the bytes of memory that are free now.
        gpu_available: returns those of the GPU's memory; None without a GPU.
    """

    def __init__(
        self,
        root: Path,
        open_model: Callable[[str, Path], Predictor],
        available: Callable[[], int],
        gpu_available: Callable[[], int] | None = None,
    ) -> None:
        self._root = root
        self._open = open_model
        self._available = available
        self._gpu_available = gpu_available
        self._models: dict[str, LoadedModel] = {}
        # Guards the models and their numbers of pending requests.
        self._changed = threading.Condition()
        self._loading = threading.Lock()

    def load(self, name: str, url: str) -> LoadedModel:
        """Load a model. Until it has been loaded, it is unknown to ``get`` and ``use``.

        Args:
            name: the name to serve it under.
            url: path of its folder, below ``root``.

        Raises:
            ModelExistsError: a model of this name is already loaded.
            RequestError: the url is not a folder below ``root``.
            ArtifactError: the folder has no model, or a damaged one.
            OutOfMemoryError: it does not fit beside the loaded models.
        """
        folder = self._resolve(url)
        # One at a time: two concurrent loads would count the same free memory.
        with self._loading:
            self._check_name_is_free(name)
            self._check_memory(name, folder)
            try:
                model = LoadedModel(name, url, self._open(name, folder))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(f"{_shown(name)} did not fit into memory; unload other models first") from None
            with self._changed:
                self._models[name] = model
            return model

    def get(self, name: str) -> LoadedModel:
        """Return a loaded model.

        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._changed:
            return self._find(name)

    @contextmanager
    def use(self, name: str) -> Iterator[LoadedModel]:
        """Lend a model to a request: it stays open until the request is answered, even if it is unloaded meanwhile.

        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._changed:
            model = self._find(name)
            model.num_pending += 1
        try:
            yield model
        finally:
            with self._changed:
                model.num_pending -= 1
                self._changed.notify_all()

    def unload(self, name: str) -> LoadedModel:
        """Unload a model: no further request finds it, and its memory is released once the pending ones are answered.

        Raises:
            UnknownModelError: no model of this name is loaded.
        """
        with self._changed:
            model = self._find(name)
            del self._models[name]
            self._changed.wait_for(lambda: model.num_pending == 0)
        model.predictor.close()
        return model

    def all(self) -> list[LoadedModel]:
        """The loaded models, sorted by name."""
        with self._changed:
            return sorted(self._models.values(), key=lambda one: one.name)

    def is_answering(self) -> bool:
        """Whether every loaded model's engine works; True without models."""
        return all(one.predictor.is_answering() for one in self.all())

    def _find(self, name: str) -> LoadedModel:
        if name not in self._models:
            raise UnknownModelError(f"no model {_shown(name)} is loaded")
        return self._models[name]

    def _resolve(self, url: str) -> Path:
        if not url.startswith("/"):
            raise RequestError(f"the url should be an absolute path below {self._root}, not {_shown(url)}")
        try:
            folder = Path(url).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            # A NUL, or links in a circle.
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise RequestError(f"the url {_shown(url)} is no path: {reason.lower()[:_MAX_SHOWN]}") from None
        if not folder.is_relative_to(self._root.resolve()):
            raise RequestError(f"the url should be a folder below {self._root}, not {_shown(url)}")
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a parent may not be read
            raise RequestError(f"the url {_shown(url)} is not a folder")
        return folder

    def _check_name_is_free(self, name: str) -> None:
        with self._changed:
            if name in self._models:
                raise ModelExistsError(f"a model {_shown(name)} is already loaded")

    def _check_memory(self, name: str, folder: Path) -> None:
        manifest = ModelManifest.read(folder)
        kinds = [("memory", memory_needed(folder, manifest), self._available)]
        if self._gpu_available is not None:
            kinds.append(("GPU memory", gpu_memory_needed(folder, manifest), self._gpu_available))
        for kind, needed, available in kinds:
            free = available()
            if free < needed:
                raise OutOfMemoryError(
                    f"{_shown(name)} needs about {needed // MIB:,} MiB of {kind} and {free // MIB:,} are free; "
                    "unload other models first"
                )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")
