"""What is called at the end of the program, at its place among the handlers of `atexit`.

Those run from the last registered to the first. The user's that were registered after the import of the package come
before ours, and have the hub thread still. But what has something to end is loaded when it is first used, which is
later; so the place is taken here, and the package root imports this at once.
"""

from __future__ import annotations

import atexit
import logging  # noqa: F401  whose own handler closes the logs: it is to come after ours, so it is registered before
from contextlib import ExitStack

_stack = ExitStack()
at_exit = _stack.callback  # `at_exit(function)`: the last one is called first, and each even if another has failed
atexit.register(_stack.close)
