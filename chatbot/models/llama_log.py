"""What llama.cpp says, heard for a while by somebody else than before."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def heard(c: Any, hear: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Within, every line of llama.cpp goes to `hear`; afterwards to whoever listened before.

    There is one listener in a process, and llama.cpp calls it whether it still exists or not.
    """
    before, data = c.llama_log_callback(), ctypes.c_void_p()
    c.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    callback = c.llama_log_callback(
        lambda _level, text, _data: hear(text.decode("utf-8", "replace").strip())
    )
    c.llama_log_set(callback, None)
    try:
        yield
    finally:
        c.llama_log_set(before, data)
