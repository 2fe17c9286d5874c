"""Stands before NVIDIA's module on the path of a process whose cards are made up; see tests/fakes/on_disk.py."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from tests.fakes.nvidia import Card, fake_pynvml
from tests.fakes.on_disk import VARIABLE, read_cards


class _Cards(Sequence[Card]):
    """The cards of the file; read anew once it was changed."""

    def __init__(self, file: Path) -> None:
        self._file, self._changed, self._cards = file, 0, list[Card]()

    def _now(self) -> list[Card]:
        changed = self._file.stat().st_mtime_ns
        if changed != self._changed:
            self._cards, self._changed = read_cards(self._file), changed
        return self._cards

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, number: int) -> Card: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Card]: ...
    def __getitem__(self, number: int | slice) -> Card | Sequence[Card]:
        return self._now()[number]

    def __iter__(self) -> Iterator[Card]:
        return iter(self._now())


fake_pynvml(_Cards(Path(os.environ[VARIABLE])), into=sys.modules[__name__])
