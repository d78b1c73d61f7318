"""What gunicorn is to know of the platform: a log without its probes, and a worker for ASGI."""

from gunicorn.glogging import Logger

PROBES = ("dinp-agent/", "dinp-hm/")


class QuietLogger(Logger):
    """Without the probes, which would fill the log."""

    def access(self, resp, req, environ, request_time):
        if not environ.get("HTTP_USER_AGENT", "").startswith(PROBES):
            super().access(resp, req, environ, request_time)


try:
    from uvicorn.workers import UvicornWorker
except ImportError:  # a package may bring a uvicorn without it
    pass
else:

    class AsgiWorker(UvicornWorker):
        """Without an access log: its lines do not say who asked, so that the probes could not be told apart."""

        CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "access_log": False}
