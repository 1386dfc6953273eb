"""As in a cell of Jupyter: the main thread runs an asyncio loop, which the call blocks, and the line lives on."""

import asyncio
import time

from visits import visit, visits


async def cell(page):
    return visit(page)[0]


async def notebook():
    counts = [await cell("notebook") for _ in range(3)]
    # Nobody runs gevent in this thread; it is not needed.
    time.sleep(0.1)
    await asyncio.sleep(0.01)
    print(counts, visits.info()["hub"])


asyncio.run(notebook())
