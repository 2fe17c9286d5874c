"""What the pens of both engines share: a token that was tried is confirmed, any other is read with a new draft."""

from __future__ import annotations

from typing import Protocol

from chatbot.engines.drafting import Drafter


class Reader(Protocol):
    """What a pen needs of its engine: the KV cache with its bookkeeping."""

    @property
    def room(self) -> int:
        """How many more tokens fit into the context."""
        ...

    def piece(self, token: int) -> bytes: ...

    def confirm(self, token: int) -> None:
        """The next tried token stays."""
        ...

    def withdraw(self) -> None:
        """Forget the tokens that were tried and not confirmed."""
        ...


class DraftingPen:
    """Takes the tokens of one answer in; `_read_on` of the engine's own pen reads what was not tried yet."""

    def __init__(self, reader: Reader, drafter: Drafter | None, most: int) -> None:
        """`most` is how many tokens the answer may have."""
        self._reader = reader
        self._drafter = drafter
        self._left = most
        self._draft: list[int] = []
        self._place = 0
        """Of the next token's logits among those of the last reading."""

    def piece(self, token: int) -> bytes:
        return self._reader.piece(token)

    def read(self, token: int) -> bool:
        reader, drafter = self._reader, self._drafter
        if not reader.room:
            return False
        self._left -= 1
        if drafter:
            drafter.took(token)
        if self._draft and self._draft[0] == token:
            del self._draft[0]
            self._place += 1
            reader.confirm(token)
            return True
        if self._draft:
            reader.withdraw()
        self._draft = drafter.propose(min(reader.room, self._left) - 1) if drafter else []
        self._read_on(token)
        return True

    def _read_on(self, token: int) -> None:
        """Read that token, and try the draft after it."""
        raise NotImplementedError
