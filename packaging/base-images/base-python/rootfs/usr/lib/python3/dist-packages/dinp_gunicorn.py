"""gunicorn's log without the probes of the platform, which would fill it."""

from gunicorn.glogging import Logger

PROBES = ("dinp-agent/", "dinp-hm/")


class QuietLogger(Logger):
    def access(self, resp, req, environ, request_time):
        if not environ.get("HTTP_USER_AGENT", "").startswith(PROBES):
            super().access(resp, req, environ, request_time)
