"""A program that gevent has patched."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402  patching comes first
from visits import visit, visits  # noqa: E402

jobs = [gevent.spawn(visit, "greenlets") for _ in range(40)]
print(sorted(job.get()[0] for job in jobs) == list(range(1, 41)), visits.info()["hub"])
