"""What the database promises: every old version opens, nothing half-done stays, deleted text is gone."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatbot.database import MIGRATIONS, Database
from chatbot.errors import DatabaseError, DiskFullError
from chatbot.settings import PROJECT

FILES = sorted(MIGRATIONS.glob("*.sql"))
NEWEST = int(FILES[-1].name[:4])


def migrations_until(version: int, folder: Path) -> Path:
    """A folder with the first migrations only, as an older Hearth had them."""
    folder.mkdir()
    for file in FILES[:version]:
        shutil.copy(file, folder)
    return folder


def schema(database: Database) -> set[tuple[str, str]]:
    rows = database.rows("SELECT name, coalesce(sql, '') FROM sqlite_master")
    return {(row[0], row[1]) for row in rows}


def version_of(file: Path) -> int:
    with sqlite3.connect(file) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return version


def test_migrations_are_numbered_without_gaps():
    assert [int(file.name[:4]) for file in FILES] == list(range(1, NEWEST + 1))


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_every_older_version_opens_with_its_content_and_a_backup(tmp_path, version):
    file = tmp_path / "hearth.db"
    old = Database(file, migrations_until(version, tmp_path / "older"))
    old.execute("INSERT INTO collections VALUES ('Luật', 1)")
    old.close()

    database = Database(file)
    fresh = Database(tmp_path / "fresh.db")
    assert database.row("SELECT name FROM collections WHERE name = 'Luật'")
    assert version_of(file) == NEWEST
    assert schema(database) == schema(fresh)
    database.close()
    fresh.close()

    backup = tmp_path / f"hearth.before-{version + 1:04}.db"
    assert version_of(backup) == version
    with sqlite3.connect(backup) as connection:
        assert connection.execute("SELECT 1 FROM collections WHERE name = 'Luật'").fetchone()
    connection.close()


def test_a_fresh_database_needs_no_backup(tmp_path):
    Database(tmp_path / "hearth.db").close()
    Database(tmp_path / "hearth.db").close()
    assert not list(tmp_path.glob("*before*"))


def test_a_newer_database_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "hearth.db"
    Database(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version={NEWEST + 1}")
    connection.close()
    with pytest.raises(DatabaseError, match="newer"):
        Database(file)
    assert version_of(file) == NEWEST + 1


def test_a_damaged_file_is_told_as_an_error_of_ours(tmp_path):
    file = tmp_path / "hearth.db"
    file.write_bytes(b"this was never a database" * 100)
    with pytest.raises(DatabaseError):
        Database(file)


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path):
    folder = migrations_until(NEWEST, tmp_path / "migrations")
    (folder / f"{NEWEST + 1:04}_broken.sql").write_text(
        "CREATE TABLE half (x);\nINSERT INTO no_such_table VALUES (1);", encoding="utf-8"
    )
    file = tmp_path / "hearth.db"
    Database(file).close()
    with pytest.raises(DatabaseError):
        Database(file, folder)
    database = Database(file)
    assert not database.row("SELECT 1 FROM sqlite_master WHERE name = 'half'")
    database.close()


def test_no_migration_without_room_for_its_backup(tmp_path, monkeypatch):
    file = tmp_path / "hearth.db"
    Database(file, migrations_until(1, tmp_path / "older")).close()
    usage = namedtuple("usage", "total used free")(0, 0, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError):
        Database(file)
    assert version_of(file) == 1


def test_a_transaction_that_raises_changes_nothing(database):
    def add_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO collections VALUES ('half', 1)")
            raise KeyError

    with pytest.raises(KeyError):
        add_and_fail()
    assert not database.row("SELECT 1 FROM collections WHERE name = 'half'")
    assert database.execute("INSERT INTO collections VALUES ('whole', 1)") == 1


def test_broken_rules_are_told_as_errors_of_ours(database):
    with pytest.raises(DatabaseError):
        database.execute("INSERT INTO collections VALUES ('documents', 1)")
    with pytest.raises(DatabaseError):
        database.execute("INSERT INTO pages VALUES ('no such document', 0, 1, 0, '')")


def test_a_full_disk_is_told_as_such(database):
    pages = database.row("PRAGMA page_count")[0]
    database.rows(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DiskFullError):
        database.execute("INSERT INTO presets VALUES ('big', zeroblob(10000000))")
    assert not database.row("SELECT 1 FROM presets")


def test_threads_never_see_each_others_half_transactions(database):
    """Each adds to one counter inside a transaction; a lost update would show in the sum."""
    database.execute("INSERT INTO collections VALUES ('counter', 0)")

    def add(_: int) -> None:
        with database.transaction() as connection:
            row = connection.execute("SELECT created_at FROM collections WHERE name='counter'")
            value = row.fetchone()[0]
            connection.execute(
                "UPDATE collections SET created_at=? WHERE name='counter'", (value + 1,)
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    assert database.row("SELECT created_at FROM collections WHERE name='counter'")[0] == 80


def test_safe_settings_hold(database):
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    assert {name: database.row(f"PRAGMA {name}")[0] for name in wanted} == wanted


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's word")
@pytest.mark.parametrize("kills", range(5))
def test_what_was_acknowledged_survives_a_kill(tmp_path, kills):
    """A process commits and says so, line by line, and is killed in the middle of it."""
    file = tmp_path / "hearth.db"
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import sys
                from pathlib import Path
                from chatbot.database import Database
                database = Database(Path(sys.argv[1]))
                for i in range(1_000_000):
                    with database.transaction() as connection:
                        for part in "abc":
                            connection.execute(
                                "INSERT INTO presets VALUES (?, ?)", (f"{i}{part}", "x" * 3000))
                    print(i, flush=True)
            """),
            str(file),
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = [int(writer.stdout.readline()) for _ in range(3 + 7 * kills)]
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().split()]
    writer.wait(30)

    database = Database(file)
    stored = {row[0] for row in database.rows("SELECT name FROM presets")}
    assert {f"{i}{part}" for i in said for part in "abc"} <= stored
    assert len(stored) % 3 == 0  # no transaction is there by half
    assert database.row("PRAGMA integrity_check")[0] == "ok"
    database.close()


def test_deleted_text_is_gone_from_the_disk(tmp_path):
    marker = "Bí-mật-" + "q7Zk" * 10
    database = Database(tmp_path / "hearth.db")
    database.execute(
        "INSERT INTO conversations(id, title, created_at, updated_at) VALUES ('c','t',1,1)"
    )
    for number in range(50):
        database.execute(
            "INSERT INTO messages(id, conversation_id, role, text, created_at, state)"
            " VALUES (?, 'c', 'user', ?, 1, 'complete')",
            (f"m{number}", f"{marker} {number} " * 200),
        )
    database.forget()
    assert traces(tmp_path, marker)  # the test can see it while it is there
    database.execute("DELETE FROM conversations")
    database.forget()
    assert traces(tmp_path, marker) == []
    database.close()


def traces(folder: Path, marker: str) -> list[str]:
    return [
        f.name
        for f in sorted(folder.rglob("*"))
        if f.is_file() and marker.encode() in f.read_bytes()
    ]


def test_a_reader_in_another_thread_waits_for_the_transaction(database):
    begun, go = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO collections VALUES ('a', 1)")
            begun.set()
            go.wait(10)
            connection.execute("INSERT INTO collections VALUES ('b', 1)")

    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write)
        assert begun.wait(10)
        query = "SELECT count(*) FROM collections WHERE name IN ('a', 'b')"
        reading = pool.submit(database.row, query)
        assert not reading.done()
        go.set()
        writing.result(10)
        assert reading.result(10)[0] == 2
