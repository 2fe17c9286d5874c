"""The times memory ran out under a model, with cause and cure: for the page that shows this PC."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass

from chatbot.database import Database
from chatbot.errors import ChatbotError, OutOfMemory
from chatbot.memory.relief import Cure

KEPT = 100


@dataclass(frozen=True, slots=True)
class Incident:
    """Memory ran out: `error` says where and what came back, `cure` what was chosen (None: nothing yet)."""

    id: int
    at: float
    error: OutOfMemory
    cure: Cure | None


class Incidents:
    """Every incident of one database; every method may be called from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, error: OutOfMemory) -> int:
        """Keep that memory ran out now; the number that `cured` takes."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO out_of_memory (at, error) VALUES (?, ?)",
                (time.time(), error.to_json()),
            )
            number = int(cursor.lastrowid or 0)
            connection.execute("DELETE FROM out_of_memory WHERE id <= ?", (number - KEPT,))
        return number

    def cured(self, number: int, cure: Cure) -> None:
        """Keep what was chosen after it."""
        self._database.execute(
            "UPDATE out_of_memory SET cure = ? WHERE id = ?",
            (json.dumps(cure.to_dict(), ensure_ascii=False), number),
        )

    def last(self) -> Incident | None:
        """The newest; None when memory never ran out."""
        row = self._database.row("SELECT * FROM out_of_memory ORDER BY id DESC LIMIT 1")
        return _incident(row) if row else None


def _incident(row: sqlite3.Row) -> Incident:
    error = ChatbotError.from_json(row["error"])
    assert isinstance(error, OutOfMemory)
    cure = Cure.from_dict(json.loads(row["cure"])) if row["cure"] else None
    return Incident(row["id"], row["at"], error, cure)
