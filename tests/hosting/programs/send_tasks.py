"""Sends tasks and waits for their results; `python send_tasks.py COUNT`."""

import sys

from tasks import visit_later

sent = [visit_later.delay("celery") for _ in range(int(sys.argv[1]))]
results = [one.get(timeout=30.0) for one in sent]
print(sorted(count for count, _ in results) == list(range(1, len(sent) + 1)), *{pid for _, pid in results})
