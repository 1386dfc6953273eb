"""A Django application in one file, with one global client; the docstring of server.py says how to run it.

In a project of many files the client is as well a global of one module, which the views import.
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

import erps_gevent as erps

tls = erps.Tls(ca="certs/ca.pem", cert="certs/web.pem", key="certs/web.key")
visits = erps.Client(
    os.environ.get("VISITS", "erps://localhost:4747"), transport=tls, identifier="visits", version="1.0.0"
)


def visit(request, page):
    try:
        count = visits.call(("visit", page, os.getpid()), timeout=5.0)
    except erps.CallExit as error:
        return JsonResponse({"error": str(error)}, status=503)
    return JsonResponse({"page": page, "visits": count, "worker": os.getpid()})


urlpatterns = [path("<page>", visit)]

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "for development only"),
)
app = get_wsgi_application()
