"""The tokenizer: the same ids for the same text, the same text back, the same vocabulary.

A Hugging Face tokenizer and llama.cpp's are different programs reading different files, so both
are asked; and their vocabularies and merges are compared whole, because no text touches every token.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from chatbot.errors import BrokenModel
from chatbot.i18n import N_
from chatbot.memory.folder import read_json
from chatbot.models.verify.check import Check, check, skipped
from chatbot.models.verify.llama import quiet
from chatbot.models.verify.stored import StoredModel
from chatbot.models.verify.texts import TEXTS
from chatbot.text import nfc

NO_TOKENIZER = N_("The tokenizer cannot be loaded: {error}")
NO_REFERENCE = N_("The model it was made from has no tokenizer that can be loaded: {error}")
OTHER_IDS = N_("“{text}” becomes other tokens.")
OTHER_TEXT = N_("The tokens of “{text}” become another text.")
OTHER_VOCABULARY = N_("Token {id} is “{text}”, and was “{before}”.")
OTHER_SIZE = N_("The vocabulary has {count} tokens, and had {before}.")
OTHER_MERGES = N_("Merge {number} of the tokenizer is another one.")
OTHER_SPECIAL = N_("The special token {part} is another one.")
OTHER_SETTING = N_("The tokenizer's setting {part} is another one.")

SPECIAL = ("bos", "eos", "unk", "pad")
MAX_ADDED = 256
_SHOWN = 40
_WHOLE = (3, 4)  # control and user-defined, in llama.cpp's numbering
_PARSE_SPECIAL = _KEEP_ENDS = _SHOW_SPECIAL = True


class Tokenizer(Protocol):
    """What both kinds can be asked."""

    vocabulary: list[str | None]
    added: dict[int, str]
    """Tokens that are whole in any text, such as <|im_end|>."""
    special: dict[str, str]
    """The text of bos, eos, … where the model has one."""
    template: str | None

    def encode(self, text: str, *, special: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def close(self) -> None: ...


def open_tokenizer(model: StoredModel) -> Tokenizer:
    """The model's tokenizer. Raises BrokenModel when it cannot be loaded."""
    if model.form == "gguf":
        return GgufTokenizer(model)
    return FolderTokenizer(model.home)


class FolderTokenizer:
    """A model folder's tokenizer, as transformers loads it."""

    def __init__(self, folder: Path) -> None:
        import transformers

        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # tokenizers raises bare Exceptions for damaged files
            raise BrokenModel(_first_line(error), name=folder.name) from error
        numbers: dict[str, int] = self._tokenizer.get_vocab()
        self.vocabulary: list[str | None] = [None] * (max(numbers.values(), default=-1) + 1)
        for text, number in numbers.items():
            self.vocabulary[number] = text
        self.added = {
            int(number): str(token.content)
            for number, token in self._tokenizer.added_tokens_decoder.items()
        }
        self.special = {
            name: found
            for name in SPECIAL
            if isinstance(found := getattr(self._tokenizer, f"{name}_token", None), str)
        }
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        self.template: str | None = template or None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)[
            "input_ids"
        ]
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    @property
    def program(self) -> dict[str, Any]:
        """Everything the tokenizer does, as tokenizer.json has it; {} for the slow kind."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return {}
        found: dict[str, Any] = json.loads(backend.to_str())
        for key in ("truncation", "padding", "version"):
            found.pop(key, None)
        return found

    def close(self) -> None:
        self._tokenizer = None


class GgufTokenizer:
    """A GGUF file's tokenizer, as llama.cpp loads it, without the weights."""

    def __init__(self, model: StoredModel) -> None:
        self._c = quiet()
        params = self._c.llama_model_default_params()
        params.vocab_only = True
        self._model = self._c.llama_model_load_from_file(str(model.files[0]).encode(), params)
        if not self._model:
            raise BrokenModel("llama.cpp", name=model.path.name)
        self._vocab = self._c.llama_model_get_vocab(self._model)
        settings = model.settings
        self.vocabulary = list(settings.get("tokenizer.ggml.tokens", []))
        kinds = settings.get("tokenizer.ggml.token_type", [])
        self.added = {
            number: text
            for number, (text, kind) in enumerate(zip(self.vocabulary, kinds, strict=False))
            if kind in _WHOLE and text is not None
        }
        names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
        self.special = {}
        for name, key in names.items():
            number = settings.get(f"tokenizer.ggml.{key}_token_id")
            if isinstance(number, int) and 0 <= number < len(self.vocabulary):
                self.special[name] = str(self.vocabulary[number])
        self.template = settings.get("tokenizer.chat_template") or None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        data = text.encode()
        room = len(data) + 16
        while True:
            tokens = (ctypes.c_int32 * room)()
            found = self._c.llama_tokenize(
                self._vocab, data, len(data), tokens, room, special, _PARSE_SPECIAL
            )
            if found >= 0:
                return list(tokens[:found])
            room = -found

    def decode(self, ids: Sequence[int]) -> str:
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        room = 16 + 16 * len(ids)
        while True:
            text = ctypes.create_string_buffer(room)
            size = self._c.llama_detokenize(
                self._vocab, tokens, len(ids), text, room, not _KEEP_ENDS, _SHOW_SPECIAL
            )
            if size >= 0:
                return text.raw[:size].decode("utf-8", "replace")
            room = -size

    def close(self) -> None:
        if self._model:
            self._c.llama_model_free(self._model)
            self._model = None


def compare(made: StoredModel, origin: StoredModel, *, grown: bool = False) -> Check:
    """Whether both tokenizers do the same; `grown` allows tokens that an adapter brought along."""
    try:
        after = open_tokenizer(made)
    except BrokenModel as error:
        return check("tokens", NO_TOKENIZER, error=str(error.values["detail"]))
    try:
        before = open_tokenizer(origin)
    except BrokenModel as error:
        after.close()
        return skipped("tokens", NO_REFERENCE, error=str(error.values["detail"]))
    try:
        return _compared(after, before, made, origin, grown=grown)
    finally:
        after.close()
        before.close()


def _compared(
    after: Tokenizer, before: Tokenizer, made: StoredModel, origin: StoredModel, *, grown: bool
) -> Check:
    measured: dict[str, Any] = {
        "texts": 0,
        "tokens": 0,
        "vocabulary": len(after.vocabulary),
        "vocabulary_before": len(before.vocabulary),
        "added": len(before.added),
    }
    fault, shown = _settings(after, before, made, origin, grown=grown)
    fault, shown = (fault, shown) if fault else _vocabulary(after, before, grown=grown)
    fault, shown = (fault, shown) if fault else _encoded(after, before, measured)
    return check("tokens", fault, measured=measured, limit={"different": 0}, **shown)


Found = tuple[str, dict[str, Any]]


def _encoded(after: Tokenizer, before: Tokenizer, measured: dict[str, Any]) -> Found:
    whole = [text for _, text in sorted(before.added.items())][:MAX_ADDED]
    for text in (*TEXTS, *whole):
        ids = before.encode(text)
        measured["texts"] += 1
        measured["tokens"] += len(ids)
        if _composes(before, after, text):
            continue  # llama.cpp normalises nothing; what Hearth hands to a model is NFC
        if after.encode(text) != ids:
            return OTHER_IDS, {"text": _short(text)}
        if text not in whole and after.decode(ids) != before.decode(ids):
            return OTHER_TEXT, {"text": _short(text)}
    for text in TEXTS[:2]:  # with what is put before and after a text
        if after.encode(text, special=True) != before.encode(text, special=True):
            return OTHER_IDS, {"text": _short(text)}
    return "", {}


def _composes(one: Tokenizer, other: Tokenizer, text: str) -> bool:
    """Whether a folder's tokenizer composes a text that is not NFC, and the other is llama.cpp's."""
    folders = [each for each in (one, other) if isinstance(each, FolderTokenizer)]
    if nfc(text) == text or len(folders) != 1:
        return False
    return folders[0].encode(text) == folders[0].encode(nfc(text))


def _vocabulary(after: Tokenizer, before: Tokenizer, *, grown: bool) -> Found:
    ours, theirs = after.vocabulary, before.vocabulary
    padded = {n for n, text in enumerate(ours) if text and text.startswith("[PAD")}
    real = len(ours)
    while real > len(theirs) and (real - 1 in padded or ours[real - 1] is None):
        real -= 1
    if real != len(theirs) and not (grown and real > len(theirs)):
        return OTHER_SIZE, {"count": real, "before": len(theirs)}
    for number, (text, was) in enumerate(zip(ours, theirs, strict=False)):
        if text == was or was is None or number in before.added or number in after.added:
            continue
        return OTHER_VOCABULARY, {"id": number, "text": _short(str(text)), "before": _short(was)}
    for number in sorted(set(before.added) & set(range(len(ours)))):
        text, was = ours[number], before.added[number]
        # The converter writes added tokens as their tokenizer spells them.
        if text not in (was, before.decode(before.encode(was))):
            return OTHER_VOCABULARY, {
                "id": number,
                "text": _short(str(text)),
                "before": _short(was),
            }
    return "", {}


def _settings(
    after: Tokenizer, before: Tokenizer, made: StoredModel, origin: StoredModel, *, grown: bool
) -> Found:
    """What the tokenizers' files say of themselves, as far as both sides say it."""
    for name in ("bos", "eos"):
        ours, theirs = after.special.get(name), before.special.get(name)
        # Without bos a text only begins otherwise, which `_encoded` sees; without eos no answer ends.
        if theirs and ours != theirs and (ours or name == "eos"):
            return OTHER_SPECIAL, {"part": f"{name}: {ours or '–'} ≠ {theirs}"}
    if isinstance(after, FolderTokenizer) and isinstance(before, FolderTokenizer):
        return _programs(after.program, before.program, grown=grown)
    if isinstance(after, GgufTokenizer) and isinstance(before, GgufTokenizer):
        return _metadata(made.settings, origin.settings)
    folder, file = (origin, made) if made.form == "gguf" else (made, origin)
    return _merges(folder.home, file.settings)


def _programs(after: dict[str, Any], before: dict[str, Any], *, grown: bool) -> Found:
    parts = {**after, "model": {}}, {**before, "model": {}}
    for key in before:
        if key == "added_tokens" and grown:
            continue
        if key != "model" and parts[0].get(key) != parts[1].get(key):
            return OTHER_SETTING, {"part": key}
    ours, theirs = after.get("model", {}), before.get("model", {})
    if (found := _first_unlike(ours.get("merges", []), theirs.get("merges", []))) is not None:
        return OTHER_MERGES, {"number": found + 1}
    for key in theirs:
        if key not in ("vocab", "merges") and ours.get(key) != theirs[key]:
            return OTHER_SETTING, {"part": key}
    return "", {}


def _metadata(after: dict[str, Any], before: dict[str, Any]) -> Found:
    for key in sorted({*after, *before}):
        if not key.startswith("tokenizer.") or after.get(key) == before.get(key):
            continue
        if key == "tokenizer.chat_template":
            continue  # has a check of its own
        if key == "tokenizer.ggml.merges":
            found = _first_unlike(after.get(key, []), before.get(key, []))
            return OTHER_MERGES, {"number": (found or 0) + 1}
        if key != "tokenizer.ggml.tokens":
            return OTHER_SETTING, {"part": key}
    return "", {}


def _merges(folder: Path, settings: dict[str, Any]) -> Found:
    """A GGUF file's merges against tokenizer.json's, where both have some."""
    ours = settings.get("tokenizer.ggml.merges")
    file = folder / "tokenizer.json"
    if not ours or not file.is_file():
        return "", {}
    model = read_json(file).get("model", {})
    theirs = [
        " ".join(part.replace(" ", "Ġ") for part in merge) if isinstance(merge, list) else merge
        for merge in model.get("merges", [])
    ]
    if theirs and (found := _first_unlike(ours, theirs)) is not None:
        return OTHER_MERGES, {"number": found + 1}
    return "", {}


def _first_unlike(ours: Sequence[Any], theirs: Sequence[Any]) -> int | None:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return number
    return min(len(ours), len(theirs)) if len(ours) != len(theirs) else None


def _short(text: str) -> str:
    shown = " ".join(text.split()) or repr(text)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
