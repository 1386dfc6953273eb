"""How long `import` takes, each time in a fresh process, from bytecode, as pip leaves an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from contestants import side

TIMED = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"


def importing(_contestant: Any, plan: side.Plan) -> dict[str, float]:
    # Not from where the modules are: with PYTHONDONTWRITEBYTECODE a source tree has no bytecode, and an import from it
    # would be a compilation.
    bytecode = Path(plan["scratch"]) / "bytecode" / plan["modules"].partition(",")[0]
    if not bytecode.exists():
        seconds_of(plan["modules"], bytecode)
    return {"micros": seconds_of(plan["modules"], bytecode) * 1e6}


def seconds_of(modules: str, bytecode: Path) -> float:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(modules)],
        env={**environ, "PYTHONPYCACHEPREFIX": str(bytecode)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout)


LOADS = {"importing": importing}

if __name__ == "__main__":
    side.main(__name__)
