"""Which of llama.cpp's pre-tokenizers splits text as a model's own tokenizer does.

The converter knows published vocabularies by their fingerprint; a fine-tune with one more token has
another. What it does not know is tried: the name whose tokens equal the tokenizer's own is the one.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import CannotConvert
from chatbot.i18n import N_
from chatbot.models.llama_log import heard

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SHORTENED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WITH_SLASH = _REST.replace(r"[\r\n]*", r"[\r\n/]*", 1)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ANY = r"[^\r\n\p{L}\p{N}]?"
_CAMEL = f"{_ANY}{_UPPER}*{_LOWER}+{_SHORTENED}?|{_ANY}{_UPPER}+{_LOWER}*{_SHORTENED}?"

STRUCTURES: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "llama-bpe": (rf"{_SHORTENED}|{_ANY}\p{{L}}+|\p{{N}}{{1,3}}{_REST}",),
    "qwen2": (rf"{_SHORTENED}|{_ANY}\p{{L}}+|\p{{N}}{_REST}",),
    "smollm": (r"\p{N}", _GPT2),
    "tekken": (rf"{_ANY}{_UPPER}*{_LOWER}+|{_ANY}{_UPPER}+{_LOWER}*|\p{{N}}{_WITH_SLASH}",),
    "gpt-4o": (f"{_CAMEL}|\\p{{N}}{{1,3}}{_WITH_SLASH}",),
}
"""Names by the expressions that tokenizer.json splits with, one after the other."""

OTHERS = (
    "dbrx", "qwen35", "deepseek-v3", "deepseek-llm", "deepseek-coder", "falcon", "seed-coder", "bloom",
    "viking", "superbpe", "exaone-moe", "youtu", "tiny_aya", "chatglm-bpe", "default",
)  # fmt: skip
"""Names with expressions of their own, tried when no structure fits."""

PROBES = (
    "Điều 12. Quyền và nghĩa vụ của sinh viên theo quy định tại khoản 3, điểm b.",
    "Học phí năm 2026 là 14.350.000 đồng; nộp trước ngày 05/09/2026 (xem Phụ lục 1).",
    "The students' library doesn't open before 8:30, and they've said so; IT'S CLOSED.",
    "1 12 123 1234 12345 1234567890 3.14 1,000,000",
    "  two spaces\t\ttabs\n\n\nthree lines\r\n   and an indent   ",
    "camelCase snake_case HTTPServer x=y+1; // comment\n\tif (a != b) { return a/b; }",
    "«Trích dẫn» — “ngoặc kép” … 😀👍🏽 naïve café 東京 한국어 Русский",
    "<b>a</b> user@example.edu.vn https://example.edu.vn/a?b=c&d=1#e ====== ......!!!",
)
"""Each holds something that pre-tokenizers split differently: numbers, apostrophes, spaces, signs."""

_SPECIAL = True
_TEXT = 3  # LLAMA_KV_OVERRIDE_TYPE_STR


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Its name in llama.cpp, and why: `fingerprint`, `structure`, `trial`, or `none` needed; `tried` counts the names."""

    name: str
    why: str
    tried: int = 0


def find_pre_tokenizer(
    folder: Path, vocabulary: Path, expected: Sequence[list[int]]
) -> PreTokenizer:
    """The name under which llama.cpp writes `expected`, the tokenizer's own tokens of PROBES.

    `vocabulary` is a GGUF of the folder's tokenizer alone. Raises CannotConvert when no name does.
    """
    fitting = [name for name, splits in STRUCTURES.items() if splits == splits_of(folder)]
    rest = [name for name in (*STRUCTURES, *OTHERS) if name not in fitting]
    try:
        from llama_cpp import llama_cpp
    except ImportError:  # nothing to try with; the structure alone has to tell
        if fitting:
            return PreTokenizer(fitting[0], "structure")
        raise _unknown(folder) from None
    with heard(llama_cpp):
        for tried, name in enumerate((*fitting, *rest), start=1):
            if list(_tokens(llama_cpp, vocabulary, name)) == list(expected):
                return PreTokenizer(name, "structure" if name in fitting else "trial", tried)
    raise _unknown(folder)


def splits_of(folder: Path) -> tuple[str, ...] | None:
    """The expressions that tokenizer.json splits text with; None where it does anything else."""
    try:
        content = json.loads((folder / "tokenizer.json").read_bytes())
        steps = list(_steps(content["pre_tokenizer"]))
        found = [_expression(step) for step in steps]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if None in found else tuple(split for split in found if split)


def _steps(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if part["type"] == "Sequence":
        for inner in part["pretokenizers"]:
            yield from _steps(inner)
    else:
        yield part


def _expression(step: dict[str, Any]) -> str | None:
    """The expression of one step, "" where it splits nothing, None where it is of another kind."""
    if step["type"] == "ByteLevel":
        return _GPT2 if step.get("use_regex", True) else ""
    if step["type"] == "Digits" and step.get("individual_digits"):
        return r"\p{N}"
    if step["type"] == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        expression = step["pattern"].get("Regex")
        return expression if isinstance(expression, str) else None
    return None


def _tokens(c: Any, vocabulary: Path, name: str) -> Iterator[list[int]]:
    """llama.cpp's tokens of every probe with that pre-tokenizer; nothing where it knows no such name."""
    override = (c.llama_model_kv_override * 2)()
    override[0].tag, override[0].key = _TEXT, b"tokenizer.ggml.pre"
    override[0].value.val_str = name.encode()
    params = c.llama_model_default_params()
    params.vocab_only, params.kv_overrides = True, override
    model = c.llama_model_load_from_file(str(vocabulary).encode(), params)
    if not model:
        return
    try:
        vocab = c.llama_model_get_vocab(model)
        for probe in PROBES:
            text = probe.encode()
            room = (ctypes.c_int32 * (len(text) + 8))()
            count = c.llama_tokenize(vocab, text, len(text), room, len(room), _SPECIAL, _SPECIAL)
            yield list(room[: max(count, 0)])
    finally:
        c.llama_model_free(model)


def _unknown(folder: Path) -> CannotConvert:
    return CannotConvert(
        N_(
            "its tokenizer splits text in a way that llama.cpp does not know; run the model folder itself"
            " instead of a GGUF file."
        ),
        name=folder.name,
    )
