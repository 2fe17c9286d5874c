"""Where the evidence for people's own questions ranks: plain BM25, SQLite's FTS5, and this search, side by side.

    python -m benchmarks.own_questions [--data ../shared/data/phapluat-vi] [--questions FILE …] [--library FOLDER]

The questions (benchmarks/questions/*.jsonl) are asked of the official PDFs, read and cut as in use. A
question is answered by a passage of the named document that contains the quoted words. All three search
the very same passages: bare BM25 (k1 1.5, b 0.75, lower-cased words), FTS5 as it comes (unicode61 with
marks removed, any of the words), and the search as it ships. Ties count against. `--library` keeps the
library that was read for the next time. Prints one JSON object and, with --each, a line a question.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sqlite3
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chatbot.evaluation.metrics import difference_interval, gold_ranks, interval
from chatbot.retrieval.search import Search
from chatbot.services import close_services, open_services
from chatbot.settings import PROJECT, Paths
from chatbot.text import nfc
from chatbot.types import SearchFilter

FILES = ("phapluat.jsonl", "phapluat_held_out.jsonl")
DEPTH = 50
LAWS = "laws"
LIBRARY = SearchFilter(collections=(LAWS,))
Ranking = list[tuple[str, float]]


def folded(text: str) -> str:
    return " ".join(nfc(text).split()).lower()


def gold(question: Mapping[str, Any], passages: Sequence[tuple[str, str, str]]) -> frozenset[str]:
    """The passages that contain the words that answer."""
    found = {
        passage
        for evidence in question["evidence"]
        for passage, name, text in passages
        if evidence["document"] in name and folded(evidence["quote"]) in text
    }
    if not found:
        raise SystemExit(f"no passage answers {question['id']}: was the reading changed?")
    return frozenset(found)


def plain_bm25(passages: Sequence[tuple[str, str, str]]) -> Callable[[str], Ranking]:
    """What a first attempt in Python does."""
    tokens = [re.findall(r"\w+", text) for _, _, text in passages]
    average = sum(map(len, tokens)) / len(tokens)
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, words in enumerate(tokens):
        for word, count in Counter(words).items():
            postings[word].append((number, count))

    def rank(question: str) -> Ranking:
        scores: Counter[int] = Counter()
        for word in re.findall(r"\w+", nfc(question).lower()):
            found = postings.get(word, [])
            rarity = math.log(1 + (len(tokens) - len(found) + 0.5) / (len(found) + 0.5))
            for number, count in found:
                length = 1 - 0.75 + 0.75 * len(tokens[number]) / average
                scores[number] += rarity * count * 2.5 / (count + 1.5 * length)
        return [(passages[number][0], score) for number, score in scores.most_common(DEPTH)]

    return rank


def fts5(passages: Sequence[tuple[str, str, str]]) -> Callable[[str], Ranking]:
    """SQLite's full-text search with marks removed, which leaves đ as it is."""
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE VIRTUAL TABLE words USING fts5(text, id UNINDEXED, tokenize='unicode61 remove_diacritics 2')"
    )
    connection.executemany(
        "INSERT INTO words (text, id) VALUES (?, ?)", ((text, id_) for id_, _, text in passages)
    )

    def rank(question: str) -> Ranking:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", nfc(question).lower()))
        rows = connection.execute(
            "SELECT id, -bm25(words) FROM words WHERE words MATCH ? ORDER BY bm25(words) LIMIT ?",
            (words, DEPTH),
        )
        return [(row[0], row[1]) for row in rows]

    return rank


def measured(ranks: Mapping[str, Sequence[int]]) -> dict[str, object]:
    """The share of questions whose evidence stands in the first k, and ours against plain BM25."""
    figures: dict[str, object] = {}
    for name, places in ranks.items():
        hits = [float(place <= 5) for place in places]
        figures[name] = {
            **{
                f"in first {k}": round(sum(p <= k for p in places) / len(places), 3)
                for k in (1, 5, 10)
            },
            "interval of the first 5": [round(end, 3) for end in interval(hits)],
        }
    ours, plain = ([float(p <= 5) for p in ranks[name]] for name in ("Hearth", "plain BM25"))
    ends = difference_interval(ours, plain)
    figures["Hearth above plain BM25, first 5"] = [round(end, 3) for end in ends]
    return figures


@contextlib.contextmanager
def opened(paths: Paths, data: Path) -> Iterator[tuple[Search, list[tuple[str, str, str]]]]:
    """The search over the PDFs, and its passages as (id, document, folded text with name and path)."""
    services = open_services(paths)
    try:
        if not services.database.row("SELECT 1 FROM documents WHERE collection = ?", (LAWS,)):
            services.add_documents(sorted(data.glob("*.pdf")), collection=LAWS)
        services.wait_until_read()
        services.index.wait_ready(600)
        rows = services.database.rows(
            "SELECT p.id, d.name, p.path, p.text FROM passages p JOIN documents d ON d.id = p.document_id"
            " WHERE d.collection = ? AND d.deleted_at IS NULL ORDER BY d.name, p.ordinal",
            (LAWS,),
        )
        yield services.search, [(r[0], r[1], folded(f"{r[1]} {r[2]} {r[3]}")) for r in rows]
    finally:
        close_services()


def asked(
    file: Path,
    searches: Mapping[str, Callable[[str], Ranking]],
    passages: Sequence[tuple[str, str, str]],
    each: bool,
) -> dict[str, object]:
    """The figures of one file of questions."""
    ranks: dict[str, list[int]] = {name: [] for name in searches}
    for line in file.read_text(encoding="utf-8").splitlines():
        question = json.loads(line)
        answers = gold(question, passages)
        for name, search in searches.items():
            found = gold_ranks(search(question["question"]), answers)
            ranks[name].append(found[0] if found else DEPTH + 1)
        if each:
            places = " ".join(f"{places[-1]:3}" for places in ranks.values())
            sys.stderr.write(f"{places}  {question['kind']:11} {question['question']}\n")
    return {"questions": len(ranks["Hearth"]), **measured(ranks)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=PROJECT.parent / "shared/data/phapluat-vi")
    parser.add_argument("--questions", type=Path, nargs="*")
    parser.add_argument("--library", type=Path)
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    files = options.questions or [
        file for name in FILES if (file := PROJECT / "benchmarks/questions" / name).exists()
    ]
    with tempfile.TemporaryDirectory(prefix="hearth-own-") as temporary:
        figures = {}
        with opened(Paths(options.library or Path(temporary)), options.data) as (search, passages):
            rivals = {"plain BM25": plain_bm25(passages), "FTS5": fts5(passages)}

            def hearth(question: str) -> Ranking:
                return [
                    (r.passage.id, r.score) for r in search.find(question, LIBRARY, DEPTH).results
                ]

            for file in files:
                figures[file.stem] = asked(
                    file, {**rivals, "Hearth": hearth}, passages, options.each
                )
    print(json.dumps(figures, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
