"""A Django project in one file, with one client for all of its threads.

    gunicorn --workers 4 --worker-class gthread --threads 16 django_app:app

In a project of several files the client has a module of its own, and the rest stands where Django wants it.
"""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

import hyperpool

client = hyperpool.Client(
    base_url=os.environ["UPSTREAM"],
    verify=os.environ.get("UPSTREAM_CA") or True,
    timeout=hyperpool.Timeout(20, connect=10),
)


def size(request, n):
    upstream = client.get(f"/bytes/{n}").raise_for_status()
    return JsonResponse({"bytes": len(upstream.content), "version": upstream.http_version, "worker": os.getpid()})


def copy(request, n):
    def pieces():
        with client.stream("GET", f"/bytes/{n}") as upstream:
            yield from upstream.raise_for_status().iter_bytes()

    return StreamingHttpResponse(pieces(), content_type="application/octet-stream")


class UpstreamErrors:
    """Middleware that makes an answer of every failure of the server behind us."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, error):
        if isinstance(error, hyperpool.HyperpoolError):
            status = 504 if isinstance(error, TimeoutError) else 502
            return JsonResponse({"error": type(error).__name__}, status=status)
        return None


urlpatterns = [
    path("size/<int:n>", size),
    path("copy/<int:n>", copy),
]
settings.configure(
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[f"{__name__}.UpstreamErrors"],
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    SECRET_KEY=os.environ.get("SECRET_KEY", "only for this example"),
)
django.setup()
app = get_wsgi_application()
