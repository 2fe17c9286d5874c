"""llama.cpp without its log."""

from __future__ import annotations

from typing import Any

_silence: Any = None


def quiet() -> Any:
    """llama.cpp's C API, started, writing nothing to the log."""
    global _silence  # noqa: PLW0603  (llama.cpp keeps one callback per process)
    from llama_cpp import llama_cpp

    if _silence is None:
        _silence = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
        llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(_silence, None)  # quantising in the same process listens too
    return llama_cpp
