"""How good the search is on questions with known answers, measured through the real thing.

A data folder is made for the occasion: SQLite, the index process, Search, exactly as in use. Each corpus
entry becomes one document of one passage, named by its title, so that what is measured is the search
and not the cutting of texts into passages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatbot.database import Database
from chatbot.errors import ChatbotError
from chatbot.evaluation import metrics
from chatbot.evaluation.datasets import Dataset, Question, load_dataset, without_accents
from chatbot.library.index import Index
from chatbot.retrieval.search import Search
from chatbot.text import language_of, nfc
from chatbot.types import SearchMode

_DEPTH = 50
"""Results asked for: ties beyond the tenth place must be seen to be counted against us."""


def evaluate(
    dataset: Path,
    *,
    mode: SearchMode = "hybrid",
    embedder: str | None = None,
    strip_accents: bool = False,
    limit: int | None = None,
) -> dict[str, Any]:
    """Hit rates, MRR, nDCG with bootstrap intervals, and latency, of a BEIR-layout folder.

    `strip_accents` asks the questions as typed without marks; `limit` asks only the first so many.
    Raises NotFoundError, SettingsError for the folder, and whatever stops the index.
    """
    data = load_dataset(dataset)
    with prepared(data, embedder) as (search, build_seconds):
        return {
            "dataset": data.name,
            "mode": mode,
            "embedder": embedder or "hearth-surface",
            "accents": "stripped" if strip_accents else "as written",
            "documents": len(data.documents),
            **measure(search, data.questions[:limit], mode, strip_accents=strip_accents),
            "documents_per_second": round(len(data.documents) / build_seconds, 1),
        }


def measure(
    search: Search,
    questions: tuple[Question, ...],
    mode: SearchMode = "hybrid",
    *,
    strip_accents: bool = False,
) -> dict[str, Any]:
    """The figures of one search on these questions; latencies in milliseconds."""
    rows, latencies = ask(search, questions, mode, strip_accents=strip_accents)
    return {
        "questions": len(rows),
        **{name: round(value, 4) for name, value in metrics.mean_measures(rows).items()},
        "intervals": {
            name: [round(end, 4) for end in metrics.interval([row[name] for row in rows])]
            for name in (rows[0] if rows else {})
        },
        "latency_p50_ms": round(1000 * metrics.percentile(latencies, 0.5), 2),
        "latency_p95_ms": round(1000 * metrics.percentile(latencies, 0.95), 2),
    }


def ask(
    search: Search,
    questions: tuple[Question, ...],
    mode: SearchMode = "hybrid",
    *,
    strip_accents: bool = False,
) -> tuple[list[dict[str, float]], list[float]]:
    """Each question's figures, and the seconds each took."""
    rows: list[dict[str, float]] = []
    latencies: list[float] = []
    for question in questions:
        text = without_accents(question.text) if strip_accents else question.text
        started = time.perf_counter()
        results = search.find(text, limit=_DEPTH, mode=mode).results
        latencies.append(time.perf_counter() - started)
        ranking = [(result.passage.document_id, result.score) for result in results]
        ranks = metrics.gold_ranks(ranking, question.gold)
        rows.append(metrics.measures(ranks, len(question.gold)))
    return rows, latencies


@contextlib.contextmanager
def prepared(data: Dataset, embedder: str | None = None) -> Iterator[tuple[Search, float]]:
    """A search over the corpus in a folder of its own, and the seconds that indexing took."""
    with tempfile.TemporaryDirectory(
        prefix="hearth-evaluation-", ignore_cleanup_errors=True
    ) as folder:
        database = Database(Path(folder) / "hearth.db")
        _fill(database, data)
        started = time.monotonic()
        index = Index(
            database, Path(folder) / "index", embedder or "hearth-surface", "one-passage-each"
        )
        try:
            if not index.wait_ready(24 * 3600) or index.status().error:
                raise index.status().error or ChatbotError("the index is not ready")
            yield Search(index), time.monotonic() - started
        finally:
            index.close()
            database.close()


def _fill(database: Database, data: Dataset) -> None:
    with database.transaction() as connection:
        for number, document in enumerate(data.documents):
            text = nfc(document.text)
            connection.execute(
                "INSERT INTO documents (id, collection, name, sha256, media_type, size, state,"
                " passages, language, added_at) VALUES (?, 'documents', ?, ?, 'text/plain', ?,"
                " 'ready', 1, ?, ?)",
                (
                    document.id,
                    nfc(document.title),
                    hashlib.sha256(f"{document.id}\0{text}".encode()).hexdigest(),
                    len(text.encode()),
                    language_of(text),
                    float(number),
                ),
            )
            connection.execute(
                "INSERT INTO passages VALUES (?, ?, 0, ?, 0, ?, NULL, '')",
                (f"{document.id}:0", document.id, text, len(text)),
            )


def main(arguments: list[str]) -> int:
    """`python -m chatbot.evaluation.retrieval DIR [--mode M] [--embedder E] [--strip-accents] [--limit N]`."""
    import argparse

    parser = argparse.ArgumentParser(prog="chatbot.evaluation.retrieval")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--mode", choices=("hybrid", "lexical", "dense"), default="hybrid")
    parser.add_argument("--embedder")
    parser.add_argument("--strip-accents", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true", help="the only form there is")
    chosen = vars(parser.parse_args(arguments))
    del chosen["json"]
    logging.basicConfig(level=logging.WARNING)
    try:
        figures = evaluate(chosen.pop("dataset"), **chosen)
    except ChatbotError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(figures, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
