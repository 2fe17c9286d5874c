"""Evaluations as they are kept: what was asked of which configuration, and where the answer ranked."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from chatbot.database import Database
from chatbot.errors import NotFoundError
from chatbot.evaluation.metrics import Difference, differences, measures, summary
from chatbot.i18n import N_
from chatbot.types import SearchMode

OWN = ""
"""The data set of runs that asked the person's own questions."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What of the search is varied between runs."""

    mode: SearchMode = "hybrid"
    rerank: bool = False
    """Whether the cross-encoder of the settings orders the leading passages."""


@dataclass(frozen=True, slots=True)
class Place:
    """A passage by its keys; `name` only where the document lies in no store."""

    document_id: str
    passage_id: str
    start: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question asked: the ranks of the right places found, and what came first instead."""

    question_id: str
    text: str
    golds: int
    ranks: tuple[int, ...]
    seconds: float
    first: Place | None

    @property
    def rank(self) -> int | None:
        """Where the best right place ranked; None when none was among the results."""
        return self.ranks[0] if self.ranks else None

    def measures(self) -> dict[str, float]:
        return measures(self.ranks, self.golds)


@dataclass(frozen=True, slots=True)
class Run:
    """One configuration asked all questions of one set; `figures` are empty until it is finished."""

    id: str
    dataset: str
    configuration: Configuration
    embedder: str
    questions: int
    created_at: float
    finished_at: float | None
    figures: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs over the questions that both asked, in pairs; differences are first minus second."""

    pairs: tuple[tuple[Outcome, Outcome], ...]
    differences: dict[str, Difference] = field(hash=False)


class Runs:
    """All evaluations of one data folder."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._compared: dict[tuple[str, str], dict[str, Difference]] = {}

    def create(self, dataset: str, configuration: Configuration, questions: int) -> str:
        """A run that has not asked anything yet."""
        run_id = uuid.uuid4().hex
        self._database.execute(
            "INSERT INTO runs (id, dataset, configuration, questions, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (run_id, dataset, json.dumps(asdict(configuration)), questions, time.time()),
        )
        return run_id

    def get(self, run_id: str) -> Run:
        """That run. Raises NotFoundError."""
        row = self._database.row("SELECT * FROM runs WHERE id = ?", (run_id,))
        if row is None:
            raise NotFoundError(N_("this evaluation"))
        return _run(row)

    def finished(self, dataset: str | None = None) -> list[Run]:
        """Every finished run, of one data set or of all, the latest first."""
        rows = self._database.rows(
            "SELECT * FROM runs WHERE finished_at IS NOT NULL AND coalesce(?, dataset) = dataset"
            " ORDER BY created_at DESC, rowid DESC",
            (dataset,),
        )
        return [_run(row) for row in rows]

    def begin(self, run_id: str, embedder: str, questions: int) -> set[str]:
        """The questions a taken-up run asked already; none of another embedder's count."""
        run = self.get(run_id)
        if run.embedder != embedder:
            self._database.execute("DELETE FROM outcomes WHERE run_id = ?", (run_id,))
        self._database.execute(
            "UPDATE runs SET embedder = ?, questions = ? WHERE id = ?",
            (embedder, questions, run_id),
        )
        rows = self._database.rows("SELECT question_id FROM outcomes WHERE run_id = ?", (run_id,))
        return {row["question_id"] for row in rows}

    def record(self, outcomes: Iterable[tuple[str, Outcome]]) -> None:
        """Keep what questions came to, with the ids of their runs."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (run_id, o.question_id, o.text, o.golds, json.dumps(o.ranks), o.seconds,
                     json.dumps(asdict(o.first) if o.first else None, ensure_ascii=False))
                    for run_id, o in outcomes
                ),
            )  # fmt: skip

    def finish(self, run_id: str) -> None:
        """Work out the figures of a run that has asked everything."""
        outcomes = self.outcomes(run_id)
        figures = summary([o.measures() for o in outcomes], [o.seconds for o in outcomes])
        self._database.execute(
            "UPDATE runs SET finished_at = ?, figures = ?, questions = ? WHERE id = ?",
            (time.time(), json.dumps(figures), len(outcomes), run_id),
        )

    def outcomes(self, run_id: str) -> list[Outcome]:
        """What each question came to."""
        rows = self._database.rows(
            "SELECT * FROM outcomes WHERE run_id = ? ORDER BY question_id", (run_id,)
        )
        return [_outcome(row) for row in rows]

    def remove(self, *run_ids: str) -> None:
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM runs WHERE id = ?", ((each,) for each in run_ids))

    def drop_unfinished(self, kept: Sequence[str] = ()) -> None:
        """Erase runs that were cancelled or failed, all but those of jobs still waiting or running."""
        rows = self._database.rows("SELECT id FROM runs WHERE finished_at IS NULL")
        self.remove(*(row["id"] for row in rows if row["id"] not in kept))

    def compare(self, first: str, second: str) -> Comparison:
        """Both runs over the questions that both asked."""
        others = {o.question_id: o for o in self.outcomes(second)}
        pairs = tuple(
            (o, others[o.question_id])
            for o in self.outcomes(first)
            if o.question_id in others and o.golds == others[o.question_id].golds
        )
        if (first, second) not in self._compared:  # thousands of draws: once is enough
            rows = [(a.measures(), b.measures()) for a, b in pairs]
            found = differences([a for a, _ in rows], [b for _, b in rows])
            self._compared[first, second] = found
        return Comparison(pairs, self._compared[first, second])

    def purge(self) -> None:
        """Erase all runs."""
        self._database.execute("DELETE FROM runs")


def _run(row: Any) -> Run:
    known = Configuration.__dataclass_fields__
    values = {k: v for k, v in json.loads(row["configuration"]).items() if k in known}
    return Run(
        row["id"],
        row["dataset"],
        Configuration(**values),
        row["embedder"],
        row["questions"],
        row["created_at"],
        row["finished_at"],
        json.loads(row["figures"] or "{}"),
    )


def _outcome(row: Any) -> Outcome:
    first = json.loads(row["first"])
    return Outcome(
        row["question_id"],
        row["text"],
        row["golds"],
        tuple(json.loads(row["ranks"])),
        row["seconds"],
        Place(**first) if first else None,
    )
