"""Search without an index: every allowed passage in SQLite compared exactly.

Answers while the index is down or being rebuilt, for files attached to one conversation, and for
filters so narrow that an index would have to throw most of its hits away.
"""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.types import SearchFilter

if TYPE_CHECKING:
    from chatbot.library.embedders import Vectors

Condition = tuple[str, list[str]]

_K1, _B = 1.2, 0.75
_MOST_READ = 3_000
"""Passages whose words are read; of a larger library only those nearest by vector, where there are any."""


def open_read_only(database: Path) -> sqlite3.Connection:
    """A connection that sees what the owner committed and can change nothing."""
    return sqlite3.connect(
        f"{database.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False, timeout=5
    )


def allowed(wanted: SearchFilter) -> Condition:
    """The SQL condition on `documents d` (and its values) that a filter stands for.

    Deleted documents and files attached to other conversations never pass.
    """
    parts, values = ["d.conversation IS NULL"], []
    if wanted.nothing:
        parts = ["0"]
    else:
        for column, chosen in (
            ("d.collection", wanted.collections),
            ("d.id", wanted.documents),
            ("d.kind", wanted.kinds),
        ):
            if chosen:
                parts.append(f"{column} IN (SELECT value FROM json_each(?))")
                values.append(json.dumps(chosen))
        if wanted.media_types:
            parts.append(f"({' OR '.join(['d.media_type LIKE ?'] * len(wanted.media_types))})")
            values.extend(wanted.media_types)
        days = [("d.issued >= ?", wanted.issued_from), ("d.issued <= ?", wanted.issued_to)]
        if wanted.in_force_on:
            # Its patterns take long to load, and a question waits for the index to start.
            from chatbot.library.register import in_force

            days.append((in_force("d"), wanted.in_force_on))
        for condition, day in days:
            if day:
                parts.append(condition)
                values.extend([day] * condition.count("?"))
    library = " AND ".join(parts)
    if wanted.conversation is None:
        return f"d.deleted_at IS NULL AND {library}", values
    values.append(wanted.conversation)
    return f"d.deleted_at IS NULL AND (({library}) OR d.conversation = ?)", values


def attached(conversation: str) -> Condition:
    """The condition that only the files attached to that conversation meet."""
    return "d.deleted_at IS NULL AND d.conversation = ?", [conversation]


def nearest(
    connection: sqlite3.Connection, condition: Condition, stamp: str, vector: Vectors, limit: int
) -> list[tuple[str, float]]:
    """Passage ids with the similarities of their stored vectors, nearest first."""
    where, values = condition
    count = "SELECT coalesce(sum(d.passages), 0) FROM documents d"
    total = connection.execute(count).fetchone()[0]
    among = connection.execute(f"{count} WHERE {where}", values).fetchone()[0]
    if 2 * among > total:
        # Straight through the vectors, and what the filter says of the best of them afterwards.
        rows = connection.execute(
            "SELECT passage_id, vector FROM vectors WHERE stamp = ?", (stamp,)
        )
        best = _nearest_of(rows, vector, 4 * limit)
        kept = visible(connection, [passage_id for passage_id, _ in best], condition)
        if len(kept) >= limit or len(best) < 4 * limit:
            return [hit for hit in best if hit[0] in kept][:limit]
    rows = connection.execute(
        "SELECT v.passage_id, v.vector FROM documents d JOIN passages p ON p.document_id = d.id"
        f" JOIN vectors v ON v.passage_id = p.id AND v.stamp = ? WHERE {where}",
        [stamp, *values],
    )
    return _nearest_of(rows, vector, limit)


def _nearest_of(rows: sqlite3.Cursor, vector: Vectors, limit: int) -> list[tuple[str, float]]:
    import numpy as np

    best: list[tuple[str, float]] = []
    while piece := rows.fetchmany(4000):
        stored = np.frombuffer(b"".join(blob for _, blob in piece), "<f4")
        scores = stored.reshape(len(piece), -1) @ vector
        top = np.argpartition(-scores, min(limit, len(piece)) - 1)[:limit]
        best.extend((piece[number][0], float(scores[number])) for number in top)
    return heapq.nlargest(limit, best, key=lambda hit: (hit[1], hit[0]))


def visible(connection: sqlite3.Connection, ids: Sequence[str], condition: Condition) -> set[str]:
    """Those passages that SQLite, the truth, lets a question see now."""
    where, values = condition
    rows = connection.execute(
        "SELECT p.id FROM passages p JOIN documents d ON d.id = p.document_id"
        f" WHERE p.id IN (SELECT value FROM json_each(?)) AND {where}",
        [json.dumps(ids), *values],
    )
    return {row[0] for row in rows}


def similarities(
    connection: sqlite3.Connection, ids: Sequence[str], stamp: str, vector: Vectors
) -> dict[str, float]:
    """The exact similarity of each of these passages that has a vector."""
    import numpy as np

    rows = connection.execute(
        "SELECT passage_id, vector FROM vectors WHERE stamp = ?"
        " AND passage_id IN (SELECT value FROM json_each(?))",
        (stamp, json.dumps(list(ids))),
    )
    return {passage_id: float(np.frombuffer(blob, "<f4") @ vector) for passage_id, blob in rows}


def word_scores(
    connection: sqlite3.Connection,
    condition: Condition,
    question: str,
    limit: int,
    near: Sequence[str] = (),
) -> tuple[list[tuple[str, float]], dict[str, float]]:
    """BM25 over words and neighbours, read from the texts, and each word's weight.

    With `near`, a library of more than 3,000 passages is not read whole: then only those are.
    """
    from chatbot.library.index_lexical import PAIRS_WEIGHT, pairs, rarity, terms

    asked = terms(question)
    wanted = dict.fromkeys(asked, 1.0) | dict.fromkeys(pairs(asked), PAIRS_WEIGHT)
    found: list[tuple[str, int, dict[str, int]]] = []
    containing: Counter[str] = Counter()
    total = length = 0
    for passage_id, text in _texts(connection, condition, near):
        tokens = terms(text)
        total += 1
        length += len(tokens)
        counts = Counter(token for token in [*tokens, *pairs(tokens)] if token in wanted)
        if counts:
            found.append((passage_id, len(tokens), counts))
            containing.update(counts.keys())
    weights = {token: rarity(containing[token], total) for token in wanted}
    average = length / max(1, total)
    scores = [
        (
            passage_id,
            math.fsum(
                wanted[token]
                * weights[token]
                * count
                * (_K1 + 1)
                / (count + _K1 * (1 - _B + _B * words / average))
                for token, count in counts.items()
            ),
        )
        for passage_id, words, counts in found
    ]
    best = heapq.nlargest(limit, scores, key=lambda hit: (hit[1], hit[0]))
    return best, {word: weights[word] for word in dict.fromkeys(asked)}


def _texts(
    connection: sqlite3.Connection, condition: Condition, near: Sequence[str]
) -> Iterator[tuple[str, str]]:
    from chatbot.library.embedders import contextual_text

    where, values = condition
    source = "passages p JOIN documents d ON d.id = p.document_id"
    count = connection.execute(
        f"SELECT coalesce(sum(d.passages), 0) FROM documents d WHERE {where}", values
    ).fetchone()[0]
    if near and count > _MOST_READ:
        where += " AND p.id IN (SELECT value FROM json_each(?))"
        values = [*values, json.dumps(list(near))]
    rows = connection.execute(
        f"SELECT p.id, d.name, p.path, p.text FROM {source} WHERE {where}", values
    )
    for passage_id, name, path, text in rows:
        yield passage_id, contextual_text(name, path, text)
