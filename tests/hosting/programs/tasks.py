"""Tasks of Celery, with a broker in a directory. The client is used when this is imported, before the worker forks."""

import os

from celery import Celery
from visits import visit

queue = os.environ["QUEUE"]
os.makedirs(queue, exist_ok=True)
app = Celery("tasks", broker="filesystem://", backend=f"file://{queue}")
app.conf.broker_transport_options = {"data_folder_in": queue, "data_folder_out": queue}

visit("import")


@app.task
def visit_later(page):
    return visit(page)
