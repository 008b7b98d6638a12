"""Training debugger: tensors saved in smdebug's format, and AWS's built-in rules evaluated on them.

smdebug takes a second to import, so it is imported only if debugging is requested.
"""

import traceback
from collections.abc import Sequence

from classifier.callbacks import Callback, CallbackList, Console
from classifier.contract.config import TrainingConfig
from classifier.contract.paths import Paths


def open_debugger(
    config: TrainingConfig, paths: Paths, console: Console, others: Sequence[Callback] = ()
) -> Callback | None:
    """Return the debugger if ``debughookconfig.json`` or the hyperparameters ``debug`` or ``debug_stop`` request it.

    ``others`` are informed of the steps that saving tensors makes longer.
    Debugging never fails a training: if setting it up fails, a warning is printed and None is returned.
    """
    parameters = config.hyperparameters
    if not (config.hook or parameters.debug or parameters.debug_stop):
        return None
    try:
        from classifier.debugging.debugger import Debugger  # noqa: PLC0415
        from classifier.debugging.settings import read_settings  # noqa: PLC0415

        disturbed = CallbackList(others, console.warn)
        return Debugger(read_settings(config, paths), paths.output_data, console.log, disturbed)
    except Exception:
        console.warn(f"cannot set up the debugger; training continues without it\n{traceback.format_exc()}")
        return None
