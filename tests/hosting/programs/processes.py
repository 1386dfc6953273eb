"""`python processes.py METHOD`: a pool of multiprocessing, whose parent has used the client before and goes on to."""

import multiprocessing
import os
import sys

from visits import visit

if __name__ == "__main__":
    assert visit("before") == (1, os.getpid())
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        results = pool.map(visit, ["pool"] * 40, chunksize=1)
        assert visit("before") == (2, os.getpid())
        pool.close()
        pool.join()
    assert visit("before") == (3, os.getpid())
    print(sorted(count for count, _ in results) == list(range(1, 41)), *{pid for _, pid in results})
