"""A program of asyncio: its calls run in threads, and its loop goes on meanwhile."""

import asyncio

from visits import visit, visits


async def main():
    results = await asyncio.gather(*(asyncio.to_thread(visit, "asyncio") for _ in range(40)))
    print(sorted(count for count, _ in results) == list(range(1, 41)), visits.info()["hub"])


asyncio.run(main())
