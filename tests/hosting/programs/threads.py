"""Native threads that share one client."""

from concurrent.futures import ThreadPoolExecutor

from visits import visit, visits

with ThreadPoolExecutor(8) as pool:
    print(sorted(count for count, _ in pool.map(visit, ["threads"] * 40)) == list(range(1, 41)), visits.info()["hub"])
