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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chatbot.database import Database
from chatbot.errors import ChatbotError
from chatbot.evaluation import metrics
from chatbot.evaluation.datasets import Dataset, Question, load_dataset, without_accents
from chatbot.evaluation.gold import Target
from chatbot.evaluation.metrics import Difference
from chatbot.evaluation.questions import Case
from chatbot.evaluation.runs import Configuration, Outcome, Place
from chatbot.library.index import Index
from chatbot.retrieval.search import Search
from chatbot.text import language_of, nfc
from chatbot.types import SearchMode

_DEPTH = 50
"""Results asked for: ties beyond the tenth place must be seen to be counted against us."""

_LOOK_SECONDS = 0.5


def evaluate(
    dataset: Path,
    *,
    mode: SearchMode = "hybrid",
    embedder: str | None = None,
    strip_accents: bool = False,
    limit: int | None = None,
    compare: SearchMode | None = None,
    reranker: str = "",
) -> dict[str, Any]:
    """Hit rates, MRR, nDCG with bootstrap intervals, and latency, of a BEIR-layout folder.

    `strip_accents` asks the questions as typed without marks; `limit` asks only the first so many;
    `compare` asks that mode too, without the `reranker`, and adds the paired differences, `mode` minus
    `compare`.
    Raises NotFoundError, SettingsError for the folder, and whatever stops the index.
    """
    data = load_dataset(dataset)
    questions = data.questions[:limit]
    with prepared(data, embedder, reranker=reranker) as (search, build_seconds):
        rows, seconds = ask(
            search, questions, mode, strip_accents=strip_accents, rerank=bool(reranker)
        )
        figures = {
            "dataset": data.name,
            "mode": mode,
            "embedder": embedder or "hearth-surface",
            **({"reranker": reranker} if reranker else {}),
            "accents": "stripped" if strip_accents else "as written",
            "documents": len(data.documents),
            **metrics.summary(rows, seconds),
            "documents_per_second": round(len(data.documents) / build_seconds, 1),
        }
        if compare:
            others, seconds = ask(search, questions, compare, strip_accents=strip_accents)
            figures["compared"] = {"mode": compare, **metrics.summary(others, seconds)}
            figures["difference"] = difference_table(metrics.differences(rows, others))
    return figures


def difference_table(differences: Mapping[str, Difference]) -> dict[str, Any]:
    """Paired differences as JSON: mean, interval, and whether more than chance is seen in it."""
    return {
        name: {
            "mean": round(found.mean, 4),
            "interval": [round(found.low, 4), round(found.high, 4)],
            "certain": found.certain,
        }
        for name, found in differences.items()
    }


def measure(
    search: Search,
    questions: tuple[Question, ...],
    mode: SearchMode = "hybrid",
    *,
    strip_accents: bool = False,
) -> dict[str, Any]:
    """The figures of one search on these questions; latencies in milliseconds."""
    return metrics.summary(*ask(search, questions, mode, strip_accents=strip_accents))


def ask(
    search: Search,
    questions: tuple[Question, ...],
    mode: SearchMode = "hybrid",
    *,
    strip_accents: bool = False,
    rerank: bool = False,
) -> tuple[list[dict[str, float]], list[float]]:
    """Each question's figures, and the seconds each took."""
    outcomes = []
    for case in cases(questions):
        text = without_accents(case.text) if strip_accents else case.text
        outcomes.append(asked(search, replace(case, text=text), Configuration(mode, rerank)))
    return [o.measures() for o in outcomes], [o.seconds for o in outcomes]


def cases(questions: Sequence[Question]) -> list[Case]:
    """A data set's questions, ready to be asked: anywhere in a gold document is right."""
    return [Case(q.id, q.text, tuple(map(Target, sorted(q.gold)))) for q in questions]


def asked(
    search: Search, case: Case, configuration: Configuration, *, named: bool = False
) -> Outcome:
    """Ask one question and see where its right places rank; `named` keeps the first document's name."""
    started = time.perf_counter()
    results = search.find(
        case.text, limit=_DEPTH, mode=configuration.mode, rerank=configuration.rerank
    ).results
    seconds = time.perf_counter() - started
    ranking = [
        ([t for t in case.targets if t.covers(p.document_id, p.start, p.end)], result.score)
        for result in results
        for p in (result.passage,)
    ]
    first = None
    if results:
        passage, name = results[0].passage, results[0].document if named else ""
        first = Place(passage.document_id, passage.id, passage.start, name)
    ranks = tuple(metrics.ranks_of(ranking))
    return Outcome(case.id, case.text, len(case.targets), ranks, seconds, first)


@contextlib.contextmanager
def prepared(
    data: Dataset,
    embedder: str | None = None,
    *,
    reranker: str = "",
    parent: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Search, float]]:
    """A search over the corpus in a folder of its own, and the seconds that indexing took.

    `on_progress` hears of passages done and in all; what it raises ends the indexing.
    """
    with tempfile.TemporaryDirectory(
        prefix="hearth-evaluation-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        database = Database(Path(folder) / "hearth.db")
        _fill(database, data)
        started = time.monotonic()
        index = Index(
            database, Path(folder) / "index", embedder or "hearth-surface", "one-passage-each"
        )
        index.use_reranker(reranker)
        try:
            while not index.wait_ready(_LOOK_SECONDS):
                status = index.status()
                if status.state in ("failed", "closed"):
                    break
                if on_progress:
                    on_progress(status.done, status.total or len(data.documents))
            if index.status().state != "ready" or index.status().error:
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
    """`python -m chatbot.evaluation.retrieval DIR [--mode M] [--embedder E] [--strip-accents] [--limit N] [--compare M]`."""
    import argparse

    parser = argparse.ArgumentParser(prog="chatbot.evaluation.retrieval")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--mode", choices=("hybrid", "lexical", "dense"), default="hybrid")
    parser.add_argument("--embedder")
    parser.add_argument("--strip-accents", action="store_true")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--reranker", default="")
    parser.add_argument("--compare", choices=("hybrid", "lexical", "dense"))
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
