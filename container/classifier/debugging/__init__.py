"""What happens inside a training: tensors saved as smdebug saves them, and rules held against them.

smdebug takes a second to import, so nothing of it is imported unless debugging is asked for.
"""

import traceback
from typing import Protocol

from classifier.callbacks import Callback
from classifier.contract.config import TrainingConfig
from classifier.contract.paths import Paths


class Console(Protocol):
    def log(self, line: str) -> None: ...

    def warn(self, line: str) -> None: ...


def open_debugger(config: TrainingConfig, paths: Paths, console: Console) -> Callback | None:
    """The debugger, where ``debughookconfig.json`` or the hyperparameters ``debug`` and ``debug_stop`` ask for it.

    One that can't be opened is a warning: debugging may not cost the training.
    """
    parameters = config.hyperparameters
    if not (config.hook or parameters.debug or parameters.debug_stop):
        return None
    try:
        from classifier.debugging.debugger import Debugger  # noqa: PLC0415
        from classifier.debugging.settings import read_settings  # noqa: PLC0415

        return Debugger(read_settings(config, paths), paths.output_data, console.log)
    except Exception:
        console.warn(f"debugging is off, since it can't be set up; the training goes on\n{traceback.format_exc()}")
        return None
