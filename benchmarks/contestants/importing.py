"""How long `import` takes, each time in a fresh process. Files and bytecode are warm, as at a second start."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from contestants import side

TIMED = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"


def importing(_contestant: Any, plan: side.Plan) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(plan["modules"])], check=True, stdout=subprocess.PIPE, text=True
    )
    return {"micros": float(done.stdout) * 1e6}


LOADS = {"importing": importing}

if __name__ == "__main__":
    side.main(__name__)
