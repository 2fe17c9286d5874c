"""A large library of real text for benchmarks, always the same, kept once it is made.

The laws of alqac-vi, the gazettes of phapluat-vi and the paragraphs of xquad-vi are cut into passages of
about 800 characters. Beyond what they give, a passage is two real halves from different places.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chatbot.database import Database
from chatbot.evaluation.datasets import Dataset, load_dataset
from chatbot.library.embedders import Embedder, SurfaceEmbedder, contextual_text, stamp_of
from chatbot.settings import PROJECT
from chatbot.text import nfc, sentences

CHUNKER = "bench"
PER_DOCUMENT = 50
_SIZE = 800
_BATCH = 500

SHARED = Path(os.environ.get("HEARTH_SHARED_DATA") or PROJECT.parent / "shared/data")
CACHE = Path(os.environ.get("HEARTH_BENCH_CACHE") or Path(tempfile.gettempdir()) / "hearth-bench")


def questions(name: str = "alqac-vi", count: int = 200) -> list[str]:
    """Real questions of a data set, spread over all of it."""
    asked = load_dataset(SHARED / name).questions
    step = max(1, len(asked) // count)
    return [question.text for question in asked[::step]][:count]


def long_questions(count: int = 40, words: int = 250) -> list[str]:
    """Real questions followed by a page of a real law that somebody pasted."""
    pages = [text for _, text in _sources() if len(text.split()) > 2 * words]
    return [
        " ".join([*question.split(), *pages[n % len(pages)].split()[: words - 20]])
        for n, question in enumerate(questions(count=count))
    ]


def passages(count: int) -> list[tuple[str, str]]:
    """(document name, text) of that many passages."""
    halves = [(name, half) for name, text in _sources() for half in _pieces(text, _SIZE // 2)]
    natural = [
        (name, f"{left}\n{right}")
        for (name, left), (other, right) in zip(halves[::2], halves[1::2], strict=False)
        if name == other
    ]
    draw = random.Random(7)
    made = natural[:count]
    while len(made) < count:
        (name, left), (_, right) = draw.choice(halves), draw.choice(halves)
        made.append((f"{name} {len(made) // PER_DOCUMENT}", f"{left}\n{right}"))
    return made


def library(count: int, embedder: Embedder | None = None) -> Path:
    """A data folder's database with that many passages and their vectors; read it, copy it, never write to it."""
    embedder = embedder or SurfaceEmbedder()
    stamp = stamp_of(embedder, CHUNKER)
    file = CACHE / f"library-{embedder.id}-{count}.db"
    if file.exists():
        return file
    CACHE.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"making {file}\n")
    growing = file.with_suffix(".growing")
    for left in CACHE.glob(f"{growing.name}*"):
        left.unlink()
    database = Database(growing)
    fill(database, passages(count), embedder, stamp)
    database.execute("UPDATE documents SET size = size")
    database.forget()
    database.close()
    growing.rename(file)
    return file


def fill(database: Database, texts: list[tuple[str, str]], embedder: Embedder, stamp: str) -> None:
    """Documents of fifty passages each, every other one in the collection 'half', the first in 'one'."""
    with database.transaction() as connection:
        connection.execute("INSERT INTO collections VALUES ('half', 0), ('one', 0)")
        for start in range(0, len(texts), PER_DOCUMENT):
            part = texts[start : start + PER_DOCUMENT]
            number = start // PER_DOCUMENT
            connection.execute(
                "INSERT INTO documents (id, collection, name, sha256, media_type, size, state, passages,"
                " added_at) VALUES (?, ?, ?, ?, 'text/plain', 1, 'ready', ?, ?)",
                (_id(number), _collection(number), f"tài liệu {number}.txt", str(number), len(part),
                 float(number)),
            )  # fmt: skip
            connection.executemany(
                "INSERT INTO passages VALUES (?, ?, ?, ?, 0, ?, NULL, ?)",
                (
                    (f"{_id(number)}-{n}", _id(number), n, text, len(text), name)
                    for n, (name, text) in enumerate(part)
                ),
            )
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        numbers = range(start, start + len(part))
        embedded = [
            contextual_text(f"tài liệu {n // PER_DOCUMENT}.txt", name, text)
            for n, (name, text) in zip(numbers, part, strict=True)
        ]
        vectors = embedder.embed(embedded, "passage").astype("<f4")
        with database.transaction() as connection:
            connection.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?)",
                (
                    (f"{_id(n // PER_DOCUMENT)}-{n % PER_DOCUMENT}", stamp, vector.tobytes())
                    for n, vector in zip(numbers, vectors, strict=True)
                ),
            )


def _id(number: int) -> str:
    return f"{number:032x}"  # as long as the ids of real documents


def _collection(number: int) -> str:
    return "one" if number == 0 else "half" if number % 2 else "documents"


def _sources() -> Iterator[tuple[str, str]]:
    for name in ("alqac-vi", "xquad-vi"):
        data: Dataset = load_dataset(SHARED / name)
        yield from ((nfc(document.title), nfc(document.text)) for document in data.documents)
    for file in sorted((SHARED / "phapluat-vi").glob("*.txt")):
        yield file.stem, nfc(file.read_text(encoding="utf-8"))


def _pieces(text: str, size: int) -> Iterator[str]:
    """Whole sentences together, about `size` characters each."""
    start = 0
    for _, end in sentences(text):
        if end - start >= size:
            yield text[start:end].strip()[: 2 * size]
            start = end
    if len(text[start:].strip()) > size // 4:
        yield text[start:].strip()[: 2 * size]
