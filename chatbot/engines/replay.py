"""Steps that a GPU records once and replays, so that Python and its launches cost nothing per token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

log = logging.getLogger(__name__)


class Replay:
    """Runs steps: recorded as CUDA graphs where there is CUDA, called as they are everywhere else.

    A step works in place on tensors that stay where they are, and doing it twice does it once: its
    inputs are written before, its result stands in its output. `reason` says why nothing is recorded.
    """

    def __init__(self, torch: Any, device: str) -> None:
        self._torch = torch
        self._graphs: dict[Hashable, Any] = {}
        self._pool: Any = None
        self._stream: Any = None
        self.reason = "" if device.startswith("cuda") else f"no CUDA graphs on {device}"

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Do the step; the second time and later with this key it is only replayed."""
        if self.reason:
            step()
        elif graph := self._graphs.get(key):
            graph.replay()
        else:
            self._record(key, step)

    def forget(self) -> None:
        """Give up what was recorded, and its memory."""
        self._graphs.clear()
        self._pool = self._stream = None

    def _record(self, key: Hashable, step: Callable[[], None]) -> None:
        """Do the step and record it beside; what cannot be recorded is never tried again."""
        cuda = self._torch.cuda
        current = cuda.current_stream()
        try:
            if self._stream is None:
                self._stream, self._pool = cuda.Stream(), cuda.graph_pool_handle()
            # Once for real on the recording stream: libraries set themselves up with the first use.
            self._stream.wait_stream(current)
            with cuda.stream(self._stream):
                step()
            current.wait_stream(self._stream)
            graph = cuda.CUDAGraph()
            with cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                step()
        except RuntimeError as error:
            cuda.set_stream(current)  # a recording that failed may leave its own behind
            if full := _out_of_memory(error, self._torch.OutOfMemoryError):
                raise full from error
            self.forget()
            self.reason = str(error).strip().partition("\n")[0] or type(error).__name__
            log.warning("steps are not recorded, each is launched anew: %s", self.reason)
            step()
        else:
            self._graphs[key] = graph


def _out_of_memory(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    # Ending a recording that failed raises an error of its own on top.
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__context__
    return found
