"""An ASGI application with a WebSocket; the server is the platform's."""

from fastapi import FastAPI, Request, WebSocket
from pydantic import BaseModel

app = FastAPI()


class Sum(BaseModel):
    a: int
    b: int


@app.get("/")
async def index(request: Request):
    return {"scheme": request.url.scheme, "client": request.client.host}


@app.post("/sum")
async def add(numbers: Sum):
    return {"sum": numbers.a + numbers.b}


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())
