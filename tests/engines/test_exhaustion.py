"""Want of memory is told from everything else that ends an engine."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from chatbot.engines import exhaustion, llama_cpp
from chatbot.engines.base import EngineSpec
from chatbot.engines.exhaustion import Witness, names_memory, place_of
from chatbot.errors import EngineError, OutOfMemory
from chatbot.hardware import pressure as hardware
from chatbot.hardware.pressure import Pressure

GB = 10**9
ROOMY = Pressure(used=4 * GB, free=12 * GB, total=16 * GB, gpu_used=None, limited=False)
SHORT = Pressure(used=15 * GB, free=GB // 2, total=16 * GB, gpu_used=None, limited=False)


@pytest.fixture
def witness(monkeypatch):
    """A witness of a PC whose memory and counter the test sets."""

    def seen(now: Pressure, ended: int = 0) -> Witness:
        counts = iter([7, 7 + ended])
        monkeypatch.setattr(exhaustion, "pressure", lambda *_pid, **_gpus: now)
        monkeypatch.setattr(exhaustion, "programs_ended", lambda: next(counts))
        made = Witness(lambda: 1, "load")
        made.look()
        return made

    return seen


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MPS backend out of memory (MPS allocated: 9.06 GB, other allocations: 1 MB, max allowed: 9.07 GB)",
        "command buffer 0 failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes.",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4294967328",
        "ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 123",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "MemoryError: ",
        "OSError: [Errno 12] Cannot allocate memory",
        "memory allocation of 16777216 bytes failed",
        "The paging file is too small for this operation to complete. (os error 1455)",
    ],
)
def test_what_libraries_say_when_memory_ran_out(said: str) -> None:
    assert names_memory(said)
    assert place_of(said) == ("gpu" if any(w in said for w in ("CU", "MPS", "kIOGPU")) else "ram")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "GGML_ASSERT(n_tokens <= n_batch) failed",
        "CUDA error: an illegal memory access was encountered",
        "Segmentation fault",
        "the memory of the conversation is empty",
    ],
)
def test_other_failures_are_not_called_want_of_memory(said: str, witness) -> None:
    assert not names_memory(said)
    for ending in (
        "SIGABRT",
        "SIGSEGV",
        "SIGKILL",
        "SIGTERM",
        "exit 1",
        "closed",
        "exit 3221225477",
    ):
        assert not witness(ROOMY).ran_out(ending, said)


def test_the_kernel_says_that_it_killed_for_memory(witness) -> None:
    assert witness(ROOMY, ended=1).ran_out("SIGKILL", "")
    assert not witness(ROOMY, ended=1).ran_out("SIGABRT", "")


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "SIGABRT", "SIGSEGV", "SIGBUS"])
def test_an_end_while_hardly_anything_was_left_is_want_of_memory(witness, ending: str) -> None:
    assert witness(SHORT).ran_out(ending, "")
    assert not witness(SHORT).ran_out("exit 0", "")


@pytest.mark.parametrize("code", [0xC0000017, 0xC000012D, 0xC0000017 - 2**32, 0xC000012D - 2**32])
def test_windows_says_it_in_the_exit_code(witness, code: int) -> None:
    assert witness(ROOMY).ran_out(f"exit {code}", "")


def test_no_memory_for_a_process_at_all_is_it_too(witness) -> None:
    assert witness(ROOMY).ran_out(os.strerror(errno.ENOMEM), "")


def test_both_layouts_of_control_groups_count(monkeypatch, tmp_path: Path) -> None:
    one, two = tmp_path / "memory/a", tmp_path / "b"
    for folder in (one, two):
        folder.mkdir(parents=True)
    (one / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (two / "memory.events").write_text("low 0\noom 5\noom_kill 4\noom_group_kill 0\n")
    assert hardware._counter(one / "memory.oom_control") == 3
    assert hardware._counter(two / "memory.events") == 4
    assert hardware._counter(tmp_path / "none") == 0


def test_what_llama_cpp_said_earlier_is_no_cause_of_a_later_error(tiny_gguf: Path) -> None:
    engine = llama_cpp.LlamaCpp(
        EngineSpec("llama_cpp", path=str(tiny_gguf), threads=1, context=64, steady=True)
    )
    said = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 64"
    llama_cpp._complaints.append(said)  # such as a measurement that got no memory for its context
    no_token = (ctypes.c_int32 * 1)(-5)
    with pytest.raises(EngineError) as raised:
        engine.decode(engine.library.llama_batch_get_one(no_token, 1))
    engine.close()
    assert not isinstance(raised.value, OutOfMemory)
