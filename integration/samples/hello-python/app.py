"""A small web application: says who and which version it is, and shows its environment."""

import json
import os
import socket
from pathlib import Path
from urllib.parse import parse_qs

import chevron

VERSION = (Path(__file__).parent / "VERSION").read_text(encoding="utf-8").strip()
PAGE = "Hello from {{app}} {{version}} on {{host}}\n"


def app(environ, start_response):
    """The WSGI application."""
    path, query = environ["PATH_INFO"], parse_qs(environ.get("QUERY_STRING", ""))
    if path == "/":
        values = {"app": os.environ.get("APP_NAME", "hello-python"), "version": VERSION, "host": socket.gethostname()}
        return answer(start_response, "200 OK", "text/plain", chevron.render(PAGE, values))
    if path == "/version":
        return answer(start_response, "200 OK", "text/plain", VERSION + "\n")
    if path == "/health":
        return answer(start_response, "200 OK", "text/plain", "ok\n")
    if path == "/env":
        name = query.get("name", [""])[0]
        if name in os.environ:
            return answer(start_response, "200 OK", "text/plain", os.environ[name] + "\n")
        return answer(start_response, "404 Not Found", "text/plain", f"{name} is not set\n")
    if path == "/headers":
        headers = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
        return answer(start_response, "200 OK", "application/json", json.dumps(headers, indent=2) + "\n")
    return answer(start_response, "404 Not Found", "text/plain", "there is no such page\n")


def answer(start_response, status, kind, text):
    """One whole answer."""
    body = text.encode()
    start_response(status, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
