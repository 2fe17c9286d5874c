"""How fast search is, side by side with the bare libraries on the very same folders.

    python benchmarks/search.py [--passages 20000] [--questions 200] [--data ../shared/data/alqac-vi]

Passages are pieces of about 800 characters of the data set's texts; copies beyond its size have a tenth of
their words replaced, so that they are neither equal nor strange. Prints one JSON object; times are
milliseconds unless named otherwise.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from chatbot.database import Database
from chatbot.evaluation.datasets import Dataset, load_dataset
from chatbot.evaluation.metrics import percentile
from chatbot.library.embedders import SurfaceEmbedder
from chatbot.library.index import Index
from chatbot.retrieval.search import Search
from chatbot.settings import PROJECT
from chatbot.types import SearchFilter


def pieces(data: Dataset, count: int) -> list[tuple[str, str]]:
    """(document name, text) pairs, always the same."""
    draw = random.Random(7)
    base = [
        (document.title, document.text[start : start + 800])
        for document in data.documents
        for start in range(0, len(document.text), 800)
    ]
    vocabulary = " ".join(text for _, text in base).split()
    made = base[:count]
    while len(made) < count:
        name, text = base[len(made) % len(base)]
        words = text.split()
        for place in draw.sample(range(len(words)), len(words) // 10):
            words[place] = draw.choice(vocabulary)
        made.append((f"{name} bản {len(made) // len(base)}", " ".join(words)))
    return made


def fill(database: Database, passages: list[tuple[str, str]]) -> None:
    """Fifty passages a document."""
    with database.transaction() as connection:
        connection.execute("INSERT INTO collections VALUES ('half', 0), ('one', 0)")
        for start in range(0, len(passages), 50):
            part = passages[start : start + 50]
            number = start // 50
            collection = "one" if number == 0 else ("half" if number % 2 else "documents")
            connection.execute(
                "INSERT INTO documents (id, collection, name, sha256, media_type, size, state, passages,"
                " added_at) VALUES (?, ?, ?, ?, 'text/plain', 1, 'ready', ?, ?)",
                (f"d{number}", collection, part[0][0], str(number), len(part), float(number)),
            )
            connection.executemany(
                "INSERT INTO passages VALUES (?, ?, ?, ?, 0, ?, NULL, ?)",
                (
                    (f"d{number}:{n}", f"d{number}", n, text, len(text), name)
                    for n, (name, text) in enumerate(part)
                ),
            )


def timed(questions: list[str], ask: Callable[[str], object]) -> dict[str, float]:
    for question in questions[:10]:
        ask(question)
    times = []
    for question in questions:
        started = time.perf_counter()
        ask(question)
        times.append(1000 * (time.perf_counter() - started))
    return {"p50": round(percentile(times, 0.5), 2), "p95": round(percentile(times, 0.95), 2)}


def bare(folder: Path, questions: list[str]) -> dict[str, dict[str, float]]:
    """Chroma and tantivy alone, in this process, on the folders that the index made."""
    from chatbot.library.index_dense import DenseIndex
    from chatbot.library.index_lexical import LexicalIndex

    embedder = SurfaceEmbedder()
    (dense_folder,), (lexical_folder,) = folder.glob("dense-*"), folder.glob("lexical-*")
    dense, lexical = DenseIndex(dense_folder), LexicalIndex(lexical_folder)
    vectors = {q: embedder.embed([q], "query")[0] for q in questions}
    figures = {
        "chroma": timed(questions, lambda q: dense.query(vectors[q], 50)),
        "tantivy": timed(questions, lambda q: lexical.query(q, 50)),
        "embedding": timed(questions, lambda q: embedder.embed([q], "query")),
    }
    dense.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data/alqac-vi")
    chosen = parser.parse_args()
    data = load_dataset(chosen.data)
    questions = [question.text for question in data.questions[: chosen.questions]]
    passages = pieces(data, chosen.passages)
    figures: dict[str, object] = {"passages": len(passages), "questions": len(questions)}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        database = Database(Path(folder) / "hearth.db")
        fill(database, passages)
        index_folder = Path(folder) / "index"

        started = time.perf_counter()
        index = Index(database, index_folder, "hearth-surface", "1")
        index.wait_ready(7200)
        seconds = time.perf_counter() - started
        figures["build_seconds"] = round(seconds, 1)
        figures["built_per_second"] = round(len(passages) / seconds)
        started = time.perf_counter()
        index.close()
        figures["seal_seconds"] = round(time.perf_counter() - started, 2)

        # On a copy: merely opening Chroma writes, and Hearth would find its seal broken.
        copy = Path(folder) / "copy"
        shutil.copytree(index_folder, copy)
        figures["bare"] = bare(copy, questions)

        started = time.perf_counter()
        index = Index(database, index_folder, "hearth-surface", "1")
        search = Search(index)
        first = time.perf_counter()
        search.find(questions[0])
        figures["first_search_after_start_seconds"] = round(time.perf_counter() - first, 2)
        index.wait_ready(7200)
        figures["open_seconds"] = round(time.perf_counter() - started, 2)
        process = psutil.Process(index._opened_pid)
        long = " ".join(questions)[:20_000]
        figures["search"] = {
            "hybrid": timed(questions, search.find),
            "lexical": timed(questions, lambda q: search.find(q, mode="lexical")),
            "dense": timed(questions, lambda q: search.find(q, mode="dense")),
            "half of the library": timed(
                questions, lambda q: search.find(q, SearchFilter(collections=("half",)))
            ),
            "one document": timed(
                questions, lambda q: search.find(q, SearchFilter(collections=("one",)))
            ),
            "a question of 20,000 characters": timed([long] * 5, search.find),
        }
        figures["index_process_mb"] = round(process.memory_info().rss / 2**20)
        index._answering = False
        figures["scan, process down"] = timed(questions[:5], search.find)
        index.close()
        database.close()
    print(json.dumps(figures, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
