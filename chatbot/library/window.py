"""How much of a passage an embedder reads: so many tokens of its own tokenizer, title and place included.

What is longer a transformer cuts off without a word; so documents are cut to what the chosen one reads.
The built-in and static embedders read everything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chatbot.library.chunking import CHUNKER_VERSION, Fits

_SPARE = 16
"""Tokens that the model's own prefix and its special tokens may take."""
_BOUNDLESS = 100_000


@dataclass(frozen=True, slots=True)
class Window:
    """`tokens` of the tokenizer in that file (tokenizer.json)."""

    tokenizer: str
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def window_of(embedder: str) -> Window | None:
    """What that embedder reads at once; None where it has no limit, is not on this PC or does not say."""
    folder = Path(embedder).expanduser()
    if not folder.is_dir():
        folder = _snapshot(embedder) or folder
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file() or _said(folder / "config.json", "model_type") == "model2vec":
        return None
    for file, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    ):
        tokens = _said(folder / file, key)
        if isinstance(tokens, int | float) and _SPARE < tokens < _BOUNDLESS:
            return Window(str(tokenizer), int(tokens))
    return None


def cut_by(window: Window | None) -> str:
    """By which rules and for which window passages were cut; equal strings, equal passages."""
    return f"{CHUNKER_VERSION}/{window.tokens}" if window else CHUNKER_VERSION


def fits(window: Window | None, name: str) -> Fits | None:
    """Whether a passage of the document of that name, with its title and path, fits the window."""
    if window is None:
        return None
    from tokenizers import Tokenizer

    from chatbot.library.embedders import contextual_text

    tokenizer = Tokenizer.from_file(window.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    room = window.tokens - _SPARE

    def measure(path: str, text: str) -> bool:
        whole = contextual_text(name, path, text)
        return len(tokenizer.encode(whole, add_special_tokens=False).ids) <= room

    return measure


def _said(file: Path, key: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError):
        return None


def _snapshot(name: str) -> Path | None:
    """The folder of a Hugging Face repository that was downloaded before."""
    if name.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
