"""The data folder's SQLite database: the truth about documents, conversations and jobs.

WAL with synchronous=FULL: what was committed survives a crash and a power cut. secure_delete=ON:
deleted text is overwritten. Migrations are numbered .sql files in `chatbot/migrations`, applied in
order, each in its own transaction with a backup beside the database first.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chatbot.errors import DatabaseError, DiskFullError
from chatbot.text import fold

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One connection shared by all threads of the owner, one statement or transaction at a time."""

    def __init__(self, file: Path, migrations: Path = MIGRATIONS) -> None:
        """Open or create, then migrate. Raises DatabaseError for a damaged or newer database."""
        self.file = file
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(
                file, check_same_thread=False, isolation_level=None, timeout=5
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.create_function("fold", 1, fold, deterministic=True)
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "foreign_keys=ON",
                "secure_delete=ON",
                "wal_autocheckpoint=400",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate(migrations)
        except sqlite3.DatabaseError as error:
            raise _explained(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: commits when the block ends, rolls back when it raises."""
        with self._lock:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.DatabaseError):
                    raise _explained(error) from error
                raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Every row of a query."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise _explained(error) from error

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row, or None."""
        rows = self.rows(sql, values)
        return rows[0] if rows else None

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """One statement in its own transaction; returns the number of rows it touched."""
        with self.transaction() as connection:
            return connection.execute(sql, values).rowcount

    def forget(self) -> None:
        """Empty the write-ahead log, so that deleted text is gone from the disk too."""
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def drop_backups(self, older_than: float = 0.0) -> None:
        """Delete the copies that migrations left, those of at least that many seconds ago."""
        for copy in self.file.parent.glob(f"{self.file.stem}.before-*.db"):
            if time.time() - copy.stat().st_mtime >= older_than:
                copy.unlink()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _migrate(self, folder: Path) -> None:
        files = sorted(folder.glob("[0-9]*.sql"))
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        newest = int(files[-1].name[:4]) if files else 0
        if version > newest:
            raise DatabaseError(f"version {version} is newer than this Hearth ({newest})")
        pending = [f for f in files if int(f.name[:4]) > version]
        if pending and version:
            self._back_up(version)
        for file in pending:
            number = int(file.name[:4])
            # executescript would commit on its own; BEGIN/COMMIT in the script keep it one step.
            self._connection.executescript(
                f"BEGIN IMMEDIATE;\n{file.read_text(encoding='utf-8')}\n"
                f"PRAGMA user_version={number};\nCOMMIT;"
            )

    def _back_up(self, version: int) -> None:
        copy = self.file.with_suffix(f".before-{version + 1:04}.db")
        if shutil.disk_usage(self.file.parent).free < 2 * self.file.stat().st_size:
            raise DiskFullError(str(copy))
        with sqlite3.connect(copy) as target:
            self._connection.backup(target)
        target.close()


def _explained(error: sqlite3.DatabaseError) -> DatabaseError | DiskFullError:
    if "full" in str(error) or "disk I/O" in str(error):
        return DiskFullError(str(error))
    return DatabaseError(str(error))
