"""A helper process for the tests of chatbot.child: echoes, counts, sleeps, fails, prints."""

from __future__ import annotations

import os
import time
from pathlib import Path

from chatbot.child import serve
from chatbot.errors import EmptyDocument


def echo(r):
    return {"x": r.params["x"]}, r.blob


def count(r):
    for i in range(r.params["n"]):
        r.check()
        r.event({"i": i})
        time.sleep(0.01)
    return {"done": True}


def boom(r):
    raise ZeroDivisionError


def empty(r):
    raise EmptyDocument(name="Quy chế.pdf")


def sleep(r):
    time.sleep(r.params["seconds"])
    return {"done": True}


def noisy(r):
    print("printed by a library", flush=True)
    os.write(1, b"written by native code, printed by a library\n")
    return {"done": True}


def touch(r):
    Path(r.params["file"]).touch()
    return {}


def until_cancelled(r):
    r.event({"started": True})
    while True:
        r.check()
        time.sleep(0.01)


if __name__ == "__main__":
    serve(
        {
            "echo": echo,
            "count": count,
            "boom": boom,
            "empty": empty,
            "sleep": sleep,
            "noisy": noisy,
            "touch": touch,
            "until_cancelled": until_cancelled,
        }
    )
