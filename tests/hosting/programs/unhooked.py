"""As uWSGI does: a fork in C, of which Python is not told, and then several threads that call at once."""

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

from visits import visit

from erps_gevent.integrations import forks

assert visit("before") == (1, os.getpid())
forks.in_child(lambda: time.sleep(0.2))  # so that all threads come while the first one lets go of the parent's lines
child = ctypes.PyDLL(None).fork()
if not child:
    with ThreadPoolExecutor(4) as pool:
        counts = [count for count, _ in pool.map(visit, ["unhooked"] * 8)]
    os._exit(0 if sorted(counts) == list(range(1, 9)) else 1)
_, status = os.waitpid(child, 0)
assert visit("before") == (2, os.getpid())
print(status)
