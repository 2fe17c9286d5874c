import time

from chatbot.child import serve


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


serve({"echo": echo, "count": count, "boom": boom})
