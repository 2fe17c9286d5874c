"""An engine worker under which memory runs out, once, in one phase; the next process is healthy.

The file that HEARTH_OOM names orders it: {"phase": "load"|"prefill"|"decode", "kind": …}. Everything else
is the real worker with the real engine.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path

import chatbot.engines.worker as real

ORDER = Path(os.environ.get("HEARTH_OOM", "no order"))
GROUP = Path("/sys/fs/cgroup/memory/hearth-oom")
TORCH_WORDS = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.63 GiB",
    "MPS backend out of memory (MPS allocated: 9.06 GB, max allowed: 9.07 GB)",
    "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
)


def order() -> dict[str, str] | None:
    return json.loads(ORDER.read_text()) if ORDER.exists() else None


class Room(real._Room):
    def _ready(self, request):
        if self._engine is None and (wanted := order()) and wanted["phase"] == "load":
            strike(wanted["kind"], request.params["spec"]["backend"], "load")
        engine = super()._ready(request)
        return (
            Watched(engine, request.params["spec"]["backend"])
            if "turns" in request.params
            else engine
        )


class Watched:
    def __init__(self, engine, backend: str) -> None:
        self._engine = engine
        self._backend = backend

    def stream(self, turns, options, cancelled):
        wanted, written = order(), 0
        for delta in self._engine.stream(turns, options, cancelled):
            yield delta
            written += bool(delta.text)
            if not wanted:
                continue
            begun = delta.progress is not None if wanted["phase"] == "prefill" else written == 3
            if begun:
                strike(wanted["kind"], self._backend, wanted["phase"], self._engine)
                wanted = None


def strike(kind: str, backend: str, phase: str, engine=None) -> None:
    ORDER.rename(ORDER.with_suffix(".done"))  # its time says when
    os.utime(ORDER.with_suffix(".done"))
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "abort":
        new = ctypes.CDLL("libstdc++.so.6")._Znwm
        new.argtypes, new.restype = [ctypes.c_size_t], ctypes.c_void_p
        new(1 << 62)  # throws std::bad_alloc, which nobody catches
    elif kind == "group":
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))
        fill_until_killed()
    elif kind == "limit":
        exhaust(leave=0 if phase == "load" else None)
    elif backend == "llama_cpp":
        refuse_in_llama_cpp(phase)
    else:
        refuse_in_torch(phase, engine)


hoard: list[object] = []


def fill_until_killed() -> None:
    while True:
        piece = bytearray(8 << 20)
        piece[::4096] = b"x" * len(piece[::4096])
        hoard.append(piece)
        time.sleep(0.001)


def exhaust(leave: int | None) -> None:
    """Let the process have no more than it holds: every real allocation fails from now on."""
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (leave or 0), resource.RLIM_INFINITY))
    if leave is not None:
        return
    for size in (1 << 20, 1 << 16, 1 << 12):  # also what the allocator keeps in reserve
        try:
            while True:
                hoard.append(bytearray(size))
        except MemoryError:
            pass


def refuse_in_llama_cpp(phase: str) -> None:
    from llama_cpp import llama_cpp

    from chatbot.engines import llama_cpp as engine

    def without_room(*_arguments):
        engine._complaints.append(
            "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9"
        )
        return

    if phase == "load":
        llama_cpp.llama_model_load_from_file = without_room
    else:
        llama_cpp.llama_decode = lambda *_arguments: -2


def refuse_in_torch(phase: str, engine) -> None:
    import torch
    import transformers

    words = TORCH_WORDS[int(time.time()) % len(TORCH_WORDS)]
    kind = torch.OutOfMemoryError if words.startswith("CUDA") else RuntimeError

    def without_room(*_arguments, **_named):
        raise kind(words)

    if phase == "load":
        transformers.AutoModelForCausalLM.from_pretrained = without_room
    else:
        engine._model.forward = without_room


if __name__ == "__main__":
    real._Room = Room
    real.main()
