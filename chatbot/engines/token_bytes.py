"""Which bytes each token of a Hugging Face tokenizer stands for."""

from __future__ import annotations

import json
from typing import Any


class TokenBytes:
    """The exact bytes that a token stands for; special tokens are silent unless asked for."""

    def __init__(self, tokens: dict[int, bytes], special: frozenset[int]) -> None:
        self._tokens = tokens
        self._special = special

    def __call__(self, token: int, *, special: bool) -> bytes:
        return b"" if token in self._special and not special else self._tokens.get(token, b"")


def token_bytes(tokenizer: Any) -> TokenBytes:
    """The bytes of every token of a tokenizers tokenizer, byte-level or SentencePiece."""
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    spell = _byte_level if "ByteLevel" in json.dumps(layout["decoder"]) else _sentence_piece
    added = {token["id"]: token for token in layout["added_tokens"]}
    tokens = {
        number: text.encode() if number in added else spell(text)
        for text, number in tokenizer.get_vocab().items()
    }
    special = frozenset(number for number, token in added.items() if token["special"])
    return TokenBytes(tokens, special)


def _byte_level(text: str) -> bytes:
    # GPT-2's alphabet: a printable stand-in for each byte.
    return b"".join(_stand_ins().get(c, None) or c.encode() for c in text)


_alphabet: dict[str, bytes] = {}


def _stand_ins() -> dict[str, bytes]:
    if not _alphabet:
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        _alphabet.update({chr(byte): bytes([byte]) for byte in printable})
        _alphabet.update({chr(256 + at): bytes([byte]) for at, byte in enumerate(others)})
    return _alphabet


def _sentence_piece(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()
