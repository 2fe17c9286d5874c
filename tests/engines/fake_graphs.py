"""CUDA graphs acted out on the CPU: operations are noted once and done again on the very same memory.

As on a GPU, a replay sees nothing of Python: numbers and shapes are those of the recording, only what
stands in the tensors may differ. What waits for a result or brings new numbers in cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FORBIDDEN = ("aten.item", "_local_scalar_dense", "lift_fresh", "nonzero")


class FakeGraph:
    """Stands for torch.cuda.CUDAGraph."""

    replays = 0

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def replay(self) -> None:
        FakeGraph.replays += 1
        for function, values, named, results in self.operations:
            again = _tensors(function(*values, **named))
            for kept, new in zip(results, again, strict=True):
                if kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(
        self, function: Any, _types: Any, values: Any = (), named: Any = None
    ) -> Any:
        if any(name in str(function) for name in _FORBIDDEN):
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        result = function(*values, **(named or {}))
        self._graph.operations.append((function, values, named or {}, _tensors(result)))
        return result


@contextmanager
def record(graph: FakeGraph, **_named: Any) -> Iterator[None]:
    """Stands for torch.cuda.graph."""
    with _Recorder(graph):
        yield


class FakeStream:
    """Stands for torch.cuda.Stream: here everything is done in order anyway."""

    def wait_stream(self, _other: Any) -> None: ...


def act_out(monkeypatch: Any) -> None:
    """Let torch.cuda record on the CPU."""
    FakeGraph.replays = 0
    for name, stand_in in {
        "Stream": FakeStream,
        "current_stream": FakeStream,
        "stream": lambda _stream: nullcontext(),
        "set_stream": lambda _stream: None,
        "graph_pool_handle": object,
        "CUDAGraph": FakeGraph,
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


def _tensors(found: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
