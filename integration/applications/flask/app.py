"""A page that needs what only compiled libraries can do."""

import io

import numpy
import psycopg
from flask import Flask, jsonify
from lxml import etree
from PIL import Image

app = Flask(__name__)


@app.get("/")
def index():
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "WEBP")
    return jsonify(
        numpy=float(numpy.linalg.det(numpy.array([[4.0, 7.0], [2.0, 6.0]]))),
        lxml=etree.fromstring("<a><b>found</b></a>").xpath("string(//b)"),
        pillow=len(picture.getvalue()) > 0,
        psycopg=psycopg.pq.version() > 0,
    )
