"""How fast this PC is: memory, matrix products, transfer to the GPU, measured in a child process.

The child runs at the lowest priority, so that an answer does not stutter, and takes a CUDA context with
it when it ends. Figures are the best of some rounds: what the PC can do when little else runs.

    python -m chatbot.hardware.speeds     serves one call, `measure`
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from chatbot.child import Child, Event, Request, serve

ROUNDS = 5
READ_BYTES = 1 << 30
"""More than any processor caches."""
SHARE_OF_FREE = 4
SIZE = 2048
"""Rows and columns of the matrices on the CPU and, for comparison, on the GPU."""
SIZE_HALF = 4096
TRANSFER_BYTES = 256 << 20
SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Speeds:
    """Bytes and floating-point operations a second; None where there is no GPU that torch can use.

    `memory` and `gpu_memory` are for reading, `core_memory` by one core alone; `matmul` figures are for 2,048² in 32 bits, `gpu_matmul_half`
    for 4,096² in 16 bits; transfers are from and to pinned memory on CUDA.
    """

    at: float
    seconds: float
    memory: float
    matmul: float
    gpu: str = ""
    gpu_memory: float | None = None
    gpu_matmul: float | None = None
    gpu_matmul_half: float | None = None
    to_gpu: float | None = None
    from_gpu: float | None = None
    core_memory: float | None = None


def measure_speeds(on_gpu: bool) -> Speeds:
    """Measure in a child of its own; takes seconds. Raises a ChildError."""
    child = Child(
        "chatbot.hardware.speeds", name="benchmark", lowest_priority=True, hung_after=60.0
    )
    try:
        figures, _ = child.call("measure", {"on_gpu": on_gpu}, timeout=SECONDS)
    finally:
        child.close()
    return Speeds(**figures)


# --- the child's side -----------------------------------------------------------------------


def _measure(request: Request) -> Event:
    start = time.monotonic()
    memory, core_memory = _memory_speeds()
    matmul = _matmul_speed()
    request.check()
    on_card = _on_card() if request.params["on_gpu"] else {}
    return asdict(
        Speeds(
            time.time(),
            time.monotonic() - start,
            memory,
            matmul,
            core_memory=core_memory,
            **on_card,
        )
    )


def _memory_speeds() -> tuple[float, float]:
    """Bytes a second that all cores together read, and one alone."""
    import numpy as np

    cores = psutil.cpu_count() or 1
    bytes_ = min(READ_BYTES, psutil.virtual_memory().available // SHARE_OF_FREE)
    block = np.ones(bytes_ // 4, dtype=np.float32)
    parts = np.array_split(block, cores)
    with ThreadPoolExecutor(cores) as pool:
        # A dot product with itself reads each value once; numpy lets go of Python meanwhile.
        together = _best(lambda: list(pool.map(lambda part: np.dot(part, part), parts)))
    return block.nbytes / together, parts[0].nbytes / _best(lambda: np.dot(parts[0], parts[0]))


def _matmul_speed() -> float:
    import numpy as np

    matrix = np.random.default_rng(1).standard_normal((SIZE, SIZE), dtype=np.float32)
    return 2 * SIZE**3 / _best(lambda: matrix @ matrix)


def _on_card() -> Event:
    import torch

    if torch.cuda.is_available():
        device, name = "cuda", torch.cuda.get_device_name(0)
        wait: Callable[[], None] = torch.cuda.synchronize
    elif torch.backends.mps.is_available():
        device, name, wait = "mps", "Apple GPU", torch.mps.synchronize
    else:
        return {}

    def timed(work: Callable[[], Any]) -> float:
        def whole() -> None:
            work()
            wait()

        return _best(whole)

    def square(size: int, kind: Any) -> Any:
        return torch.randn(size, size, device=device).to(kind)

    here = torch.empty(TRANSFER_BYTES // 4, pin_memory=device == "cuda")
    there = here.to(device)
    matrix, half = square(SIZE, torch.float32), square(SIZE_HALF, torch.float16)
    row = torch.ones(1, TRANSFER_BYTES // SIZE_HALF // 2, device=device, dtype=torch.float16)
    weights = torch.ones(row.shape[1], SIZE_HALF, device=device, dtype=torch.float16)
    return {
        "gpu": name,
        # One row times a matrix reads the matrix once, as writing a token reads the weights.
        "gpu_memory": weights.nbytes / timed(lambda: row @ weights),
        "gpu_matmul": 2 * SIZE**3 / timed(lambda: matrix @ matrix),
        "gpu_matmul_half": 2 * SIZE_HALF**3 / timed(lambda: half @ half),
        "to_gpu": here.nbytes / timed(lambda: there.copy_(here)),
        "from_gpu": here.nbytes / timed(lambda: here.copy_(there)),
    }


def _best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of some rounds, after one that does not count."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    serve({"measure": _measure})
