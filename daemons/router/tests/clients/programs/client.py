"""Python's http.client and urllib.request. Arguments: URL of the app, URL of an unknown host, names of cases."""

import http.client
import json
import os
import socket
import struct
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

APP, UNKNOWN = sys.argv[1:3]
MEGABYTE = b"".join(struct.pack(">I", number) for number in range(262_144))
LARGE = 32 * 1_048_576
TIMEOUT = 30


def connect(url=APP):
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{str(found)[:200]} is not {str(wanted)[:200]}")


def ask(method, path, body=None, headers={}, connection=None, **more):
    connection = connection or connect()
    connection.request(method, path, body, headers, **more)
    answer = connection.getresponse()
    return answer, answer.read()


def pieces(size, limit):
    for _ in range(limit // size):
        yield bytes(size)


def keep_alive():
    connection = connect()
    for number in range(20):
        answer, body = ask("GET", f"/keep?{number}", connection=connection)
        expect((answer.status, body, answer.will_close), (200, b"kept", False))


def urllib_closes():
    for number in range(20):
        with urllib.request.urlopen(f"{APP}/keep?{number}", timeout=TIMEOUT) as answer:
            expect((answer.status, answer.read()), (200, b"kept"))


def length():
    answer, body = ask("POST", "/echo", MEGABYTE)
    expect(answer.status, 200)
    expect(body, MEGABYTE)


def chunked():
    parts = (MEGABYTE[begin : begin + 7_777] for begin in range(0, len(MEGABYTE), 7_777))
    answer, body = ask("POST", "/echo", parts, encode_chunked=True)
    expect(answer.status, 200)
    expect(body, MEGABYTE)


def trailers():
    # http.client reads trailers and tells nothing of them; that it finds the next answer shows that it read them.
    connection = connect()
    answer, body = ask("GET", "/trailers", connection=connection)
    expect((answer.status, answer.getheader("Trailer"), body), (200, "X-Sum", b"with trailers"))
    expect(ask("GET", "/keep", connection=connection)[1], b"kept")


def head():
    connection = connect()
    answer, body = ask("HEAD", "/head", connection=connection)
    expect((answer.status, answer.getheader("Content-Length"), body), (200, "1000", b""))
    expect(ask("GET", "/keep", connection=connection)[1], b"kept")


def no_content():
    connection = connect()
    answer, body = ask("GET", "/empty", connection=connection)
    expect((answer.status, answer.getheader("Content-Length"), body), (204, None, b""))
    expect(ask("GET", "/keep", connection=connection)[1], b"kept")


def not_modified():
    connection = connect()
    answer, body = ask("GET", "/same", headers={"If-None-Match": '"1"'}, connection=connection)
    expect((answer.status, answer.getheader("ETag"), body), (304, '"1"', b""))
    expect(ask("GET", "/keep", connection=connection)[1], b"kept")


def early_answer(path="/large"):
    # http.client reads nothing before it has sent all: the router has to take the rest.
    answer, body = ask("POST", path, pieces(65_536, LARGE), {"Content-Length": str(LARGE)})
    expect((answer.status, body), (413, b"too large"))


def early_answer_gone():
    early_answer("/large/gone")


def endless():
    # For the same reason it sees an answer to a body without end only when its connection ends. The answer waits behind
    # that, for those who look, as urllib3 does.
    connection = connect()
    try:
        connection.request("POST", "/large", pieces(65_536, 1 << 50), encode_chunked=True)
    except BrokenPipeError:
        answer = connection.getresponse()
        expect((answer.status, answer.read()), (413, b"too large"))
        return
    raise AssertionError("it was taken whole")


def events():
    connection = connect()
    connection.request("GET", "/events")
    answer = connection.getresponse()
    expect((answer.status, answer.read(11)), (200, b"data: one\n\n"))
    connection.close()


def hints():
    # http.client passes over 100 alone: 103 is its answer, and the final one is left in the connection. An app that
    # sends hints to everybody is not readable for Python without a router either.
    connection = connect()
    answer, body = ask("GET", "/hints", connection=connection)
    expect((answer.status, answer.getheader("Link"), body), (103, "</style.css>; rel=preload", b""))


def unknown_host():
    answer, body = ask("GET", "/", headers={"Accept": "application/json"}, connection=connect(UNKNOWN))
    expect((answer.status, answer.getheader("Content-Type")), (404, "application/problem+json"))
    expect(json.loads(body)["type"], "urn:dinp:unknown-host")


def urllib_post():
    with urllib.request.urlopen(f"{APP}/echo", MEGABYTE, TIMEOUT) as answer:
        expect(answer.read(), MEGABYTE)


def urllib_unknown_host():
    # It names no type that it prefers.
    try:
        urllib.request.urlopen(UNKNOWN, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        expect((error.code, error.headers["Content-Type"]), (404, "text/plain; charset=utf-8"))
        expect(error.read(), b"404 Not Found: no app answers to this host name\n")
        return
    raise AssertionError("there is an app")


def urllib_early_answer():
    request = urllib.request.Request(f"{APP}/large", pieces(65_536, LARGE), {"Content-Length": str(LARGE)})
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        expect((error.code, error.read()), (413, b"too large"))
        return
    raise AssertionError("it was taken")


def websocket():
    where = urlsplit(APP)
    stream = socket.create_connection((where.hostname, where.port), TIMEOUT)
    stream.sendall(
        f"GET /websocket HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    file = stream.makefile("rb")
    expect(file.readline(), b"HTTP/1.1 101 Switching Protocols\r\n")
    headers = http.client.parse_headers(file)
    expect(headers["Sec-WebSocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    expect((headers["Upgrade"].lower(), headers["Connection"].lower()), ("websocket", "upgrade"))
    expect(receive(file), (0x81, b"welcome"))
    for first, content in [(0x81, b"hello"), (0x82, MEGABYTE[:200]), (0x82, MEGABYTE), (0x89, b"ping"), (0x88, b"\3\xe8")]:
        stream.sendall(frame(first, content))
        expect(receive(file), (first, content))
    expect(file.read(), b"")


def frame(first, content):
    size = len(content)
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    mask = os.urandom(4)
    key = int.from_bytes(mask * (size // 4 + 1), "big") >> 8 * (4 - size % 4)
    return head + mask + (int.from_bytes(content, "big") ^ key).to_bytes(size, "big")


def receive(file):
    first, size = file.read(2)
    if size == 126:
        size = struct.unpack(">H", file.read(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", file.read(8))[0]
    return first, file.read(size)


failed = False
for name in sys.argv[3:]:
    try:
        globals()[name.replace("-", "_")]()
        print(f"ok {name}", flush=True)
    except Exception as error:
        failed = True
        print(f"bad {name}: {error!r}", flush=True)
sys.exit(failed)
