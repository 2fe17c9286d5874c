"""Export and import: what travels arrives bit for bit, once, without embedding; what is harmful is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.database import Database
from chatbot.errors import BrokenCollectionFile, DiskFullError, NotFoundError
from chatbot.failpoints import EXIT_CODE
from chatbot.library import importing
from chatbot.library.bundle import DOCUMENTS, MANIFEST, ORIGINALS, PAGES, PASSAGES
from chatbot.library.exporting import export
from chatbot.library.ingest import Ingest
from chatbot.library.store import DocumentStore
from chatbot.settings import PROJECT, Paths
from tests.library.conftest import RecordingIndex

LAW = "Điều 1. Học phí\nNộp trong 4 tuần.\nĐiều 2. Học bổng\nXét theo học kỳ.\n"
TABLES = {
    "documents": "id",
    "pages": "document_id, ordinal",
    "passages": "id",
    "vectors": "passage_id, stamp",
    "relations": "document_id, number",
}


@pytest.fixture
def library(reader, tmp_path) -> Iterator[Callable[[str], SimpleNamespace]]:
    """Makes a library of its own in a fresh data folder."""
    opened: list[Database] = []

    def make(name: str) -> SimpleNamespace:
        paths = Paths(tmp_path / name)
        paths.make()
        database = Database(paths.database)
        opened.append(database)
        store, index = DocumentStore(database, paths, spare_bytes=0), RecordingIndex()
        return SimpleNamespace(
            paths=paths, database=database, store=store, index=index, ingest=Ingest(store, reader, index)
        )  # fmt: skip

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def full(library) -> SimpleNamespace:
    """Two collections, one document that still waits, one in the trash, one of a conversation."""
    made = library("đây")
    made.ingest.add([("luật.txt", LAW.encode())], "Luật")
    made.ingest.add([("ghi chú.md", b"# Notes\n\nA few words.\n"), ("bỏ.txt", b"thrown away")])
    made.ingest.add([("riêng.txt", b"of one conversation")], conversation="c1")
    for document_id in made.ingest.unfinished():
        made.ingest.process(document_id)
    made.ingest.remove(next(d.id for d in made.store.list() if d.name == "bỏ.txt"))
    made.ingest.add([("chờ.txt", b"not read yet")])
    return made


@pytest.fixture
def file(full, tmp_path) -> Path:
    target = tmp_path / "bộ sưu tập.zip"
    export(full.paths.database, full.paths.files, target)
    return target


def rows(library: SimpleNamespace, table: str, where: str = "1") -> list[dict[str, Any]]:
    found = library.database.rows(f"SELECT * FROM {table} WHERE {where} ORDER BY {TABLES[table]}")
    return [dict(row) for row in found]


# --- there and back -------------------------------------------------------------------------


def test_everything_arrives_bit_for_bit_and_nothing_is_embedded(full, file, library):
    there = library("đó")
    done = there.ingest.take_in(file)
    assert (done.documents, done.doubles, done.unread, done.without_vectors) == (3, 0, 1, 0)
    assert there.index.embedded == 0
    kept = "deleted_at IS NULL AND conversation IS NULL"
    assert rows(there, "documents") == rows(full, "documents", kept)
    of_kept = f"document_id IN (SELECT id FROM documents WHERE {kept})"
    for table in ("pages", "passages"):
        assert rows(there, table) == rows(full, table, of_kept)
    of_passages = f"passage_id IN (SELECT id FROM passages WHERE {of_kept})"
    assert rows(there, "vectors") == rows(full, "vectors", of_passages) != []
    for document in there.store.list():
        content = there.store.file(document.id).read_bytes()
        assert hashlib.sha256(content).hexdigest() == document.sha256
    assert there.index.documents == {d.id for d in there.store.list()}
    assert [d.name for d in map(there.store.get, there.ingest.unfinished())] == ["chờ.txt"]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=4),
        min_size=1,
        max_size=4,
        unique_by="".join,
    ),
    st.integers(1, 5),
)
def test_any_text_and_any_vectors_arrive(library, tmp_path_factory, contents, dimension):
    folder = tmp_path_factory.mktemp("lượt")
    here, there = (library(f"{folder.name}-{side}") for side in "ab")
    generator = np.random.default_rng(dimension)
    for number, pages in enumerate(contents):
        document = here.store.keep(f"{number}{pages}".encode(), f"{number}.txt").document
        starts = [sum(map(len, pages[:n])) for n in range(len(pages))]
        with here.database.transaction() as connection:
            for ordinal, (start, text) in enumerate(zip(starts, pages, strict=True)):
                connection.execute(
                    "INSERT INTO pages (document_id, ordinal, number, start, text) VALUES (?,?,?,?,?)",
                    (document.id, ordinal, ordinal + 1, start, text),
                )
                connection.execute(
                    'INSERT INTO passages (id, document_id, ordinal, text, start, "end", page, path)'
                    " VALUES (?,?,?,?,?,?,?,'')",
                    (f"{document.id}-{ordinal}", document.id, ordinal, text, start, start + len(text), 1),
                )  # fmt: skip
                vector = generator.standard_normal(dimension).astype("<f4").tobytes()
                values = (f"{document.id}-{ordinal}", here.index.stamp, vector)
                connection.execute("INSERT INTO vectors VALUES (?, ?, ?)", values)
            connection.execute(
                "UPDATE documents SET state = 'ready', pages = ?, passages = ? WHERE id = ?",
                (len(pages), len(pages), document.id),
            )
    target = folder / "x.zip"
    export(here.paths.database, here.paths.files, target)
    there.ingest.take_in(target)
    for table in ("pages", "passages", "vectors"):
        assert nameless(rows(there, table)) == nameless(rows(here, table))


def nameless(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the passages' ids, which a library makes from what the passages say."""
    return [{k: v for k, v in row.items() if k not in ("id", "passage_id")} for row in found]


def test_the_same_library_gives_the_same_bytes(full, file, tmp_path):
    again = tmp_path / "lần nữa.zip"
    export(full.paths.database, full.paths.files, again)
    assert again.read_bytes() == file.read_bytes()


def test_one_collection_travels_alone_and_may_change_its_name(full, tmp_path, library):
    target = tmp_path / "luật.zip"
    done = export(full.paths.database, full.paths.files, target, "Luật")
    assert (done.documents, done.size) == (1, target.stat().st_size)
    there = library("đó")
    there.ingest.take_in(target, "Của bạn tôi")
    assert [(d.name, d.collection) for d in there.store.list()] == [("luật.txt", "Của bạn tôi")]


def test_an_unknown_collection_is_said(full, tmp_path):
    with pytest.raises(NotFoundError):
        export(full.paths.database, full.paths.files, tmp_path / "x.zip", "không có")
    assert not (tmp_path / "x.zip").exists()


def test_what_is_here_already_is_not_stored_twice(full, file, library):
    assert full.ingest.take_in(file).documents == 0
    there = library("đó")
    there.ingest.take_in(file)
    before = {table: rows(there, table) for table in TABLES}
    assert there.ingest.take_in(file).doubles == 3
    assert {table: rows(there, table) for table in TABLES} == before


def test_an_id_that_is_taken_here_becomes_another(full, file):
    names = {d.name for d in full.store.list()}
    full.ingest.remove(*(d.id for d in full.store.list()))
    in_trash = set(full.store.trash.ids())
    assert full.ingest.take_in(file).documents == 3
    assert {d.name for d in full.store.list()} == names
    assert not in_trash & {d.id for d in full.store.list()}


def test_vectors_of_another_embedder_stay_behind(full, file, library):
    there = library("đó")
    there.index.stamp = "another@2/9"
    done = there.ingest.take_in(file)
    assert done.without_vectors == 2
    assert rows(there, "vectors") == []


def test_columns_of_a_newer_hearth_are_left_out_and_older_files_still_open(full, file, library):
    full.database.execute("ALTER TABLE pages ADD COLUMN future BLOB")
    full.database.execute("UPDATE pages SET future = x'00ff'")
    export(full.paths.database, full.paths.files, file)
    there, also_new = library("cũ"), library("mới")
    assert there.ingest.take_in(file).documents == 3
    also_new.database.execute("ALTER TABLE pages ADD COLUMN future BLOB")
    also_new.ingest.take_in(file)
    assert {row["future"] for row in rows(also_new, "pages")} == {b"\x00\xff"}


# --- ends in the middle ---------------------------------------------------------------------


def test_cancelling_leaves_whole_documents_and_a_second_import_goes_on(file, library):
    there = library("đó")

    def stop(fraction: float) -> None:
        if fraction > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        there.ingest.take_in(file, on_progress=stop)
    assert len(there.store.list()) == 1
    done = there.ingest.take_in(file)
    assert (done.documents, done.doubles) == (2, 1)


_VICTIM = """
import sys
from pathlib import Path
from chatbot.database import Database
from chatbot.library.ingest import Ingest
from chatbot.library.store import DocumentStore
from chatbot.settings import Paths
from tests.library.conftest import RecordingIndex
paths = Paths(Path(sys.argv[1]))
paths.make()
store = DocumentStore(Database(paths.database), paths, spare_bytes=0)
Ingest(store, None, RecordingIndex()).take_in(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("step", ["copied", "stored", "half-taken-in", "taken-in"])
def test_killed_at_any_step_nothing_is_half_there(file, library, step, tmp_path):
    data = tmp_path / "đó"
    environment = {**os.environ, "HEARTH_FAILPOINT": step, "PYTHONPATH": str(PROJECT)}
    killed = subprocess.run(
        [sys.executable, "-c", _VICTIM, str(data), str(file)], check=False, env=environment
    )
    assert killed.returncode == EXIT_CODE
    there = library("đó")
    for document in there.store.list():
        assert len(there.store.contents.passages(document.id)) == document.passages
    stored = {f.name for f in there.paths.files.iterdir()}
    assert stored == {d.sha256 for d in there.store.list()}
    there.ingest.take_in(file)
    undisturbed = library("yên ổn")
    undisturbed.ingest.take_in(file)
    assert all(rows(there, table) == rows(undisturbed, table) for table in TABLES)


def test_a_full_disk_is_said_and_leaves_nothing(full, file, library, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    there = library("đó")
    with pytest.raises(DiskFullError):
        there.ingest.take_in(file)
    with pytest.raises(DiskFullError):
        export(full.paths.database, full.paths.files, tmp_path / "x.zip")
    assert there.store.list() == []
    assert not (tmp_path / "x.zip").exists()


# --- damaged and hostile files --------------------------------------------------------------


def repacked(
    file: Path, change: Callable[[dict[str, bytes]], None], *, honest: bool = True
) -> Path:
    """The same file with changed parts; `honest` corrects the manifest's sizes and hashes."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    if honest and MANIFEST in parts:
        manifest = json.loads(parts.pop(MANIFEST))
        manifest["parts"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in parts.items()
        }
        parts[MANIFEST] = json.dumps(manifest).encode()
    target = file.with_name("đổi.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return target


def edited(
    part: str, change: Callable[[list[dict[str, Any]]], None]
) -> Callable[[dict[str, bytes]], None]:
    """Changes the rows of a part."""

    def edit(parts: dict[str, bytes]) -> None:
        lines = [json.loads(line) for line in parts[part].splitlines()]
        change(lines)
        parts[part] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    return edit


def values(part: str, **changes: Any) -> Callable[[dict[str, bytes]], None]:
    return edited(part, lambda lines: lines[0].update(changes))


HOSTILE: dict[str, Callable[[dict[str, bytes]], None]] = {
    "a path that leaves the folder": lambda p: p.update(
        {"../../evil.txt": b"x", MANIFEST: p.pop(MANIFEST)}
    ),
    "a part nobody knows": lambda p: p.update({"program.exe": b"x", MANIFEST: p.pop(MANIFEST)}),
    "an original under another's hash": lambda p: p.update({next(iter(p)): b"other words"}),
    "an original that is missing": lambda p: p.pop(next(iter(p))),
    "rows that are no JSON": lambda p: p.update({DOCUMENTS: b"{not json}\n"}),
    "rows too deep to read": lambda p: p.update({DOCUMENTS: b"[" * 200_000 + b"\n"}),
    "a row that is a list": lambda p: p.update({DOCUMENTS: b"[]\n"}),
    "fewer documents than promised": edited(DOCUMENTS, lambda lines: lines.pop()),
    "a document twice": edited(DOCUMENTS, lambda lines: lines.append(lines[0])),
    "an id that is a path": values(DOCUMENTS, id="../../../../etc/passwd"),
    "a hash that is a path": values(DOCUMENTS, sha256="../../hearth.db"),
    "a name that is a path": values(DOCUMENTS, name="../evil.txt"),
    "a collection without a name": values(DOCUMENTS, collection="  "),
    "a state of its own": values(DOCUMENTS, state="reading"),
    "a language of its own": values(DOCUMENTS, language="xx"),
    "headings that are none": values(DOCUMENTS, headings='[["a", 1]]'),
    "headings that are no JSON": values(DOCUMENTS, headings="[["),
    "a number as a name": values(DOCUMENTS, name=7),
    "a time that never comes": values(DOCUMENTS, added_at=float("inf")),
    "half a character": values(DOCUMENTS, title="\ud800"),
    "an endless title": values(DOCUMENTS, title="x" * 30_000),
    "a number beyond SQLite": values(PAGES, number=1 << 70),
    "pages of nobody": values(PAGES, document_id="0" * 32),
    "a page out of order": values(PAGES, ordinal=5),
    "a passage that quotes what is not there": values(PASSAGES, text="Phạt 100 triệu đồng."),
    "a passage elsewhere": values(PASSAGES, start=3),
    "a passage left out": edited(PASSAGES, lambda lines: lines.pop(0)),
    "vectors cut off": lambda p: p.update({"vectors/0.f32": p["vectors/0.f32"][:-4]}),
    "vectors too many": lambda p: p.update({"vectors/0.f32": p["vectors/0.f32"] + bytes(16)}),
    "vectors that are no numbers": lambda p: p.update(
        {"vectors/0.f32": np.full(len(p["vectors/0.f32"]) // 4, np.nan, "<f4").tobytes()}
    ),
    "stamps that do not exist": edited(DOCUMENTS, lambda lines: lines[0].update({"$vectors": [3]})),
    "a column that should be bytes": values(PAGES, text={"$base64": "!!"}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_and_changes_nothing(file, library, kind):
    there = library("đó")
    with pytest.raises(BrokenCollectionFile):
        there.ingest.take_in(repacked(file, HOSTILE[kind]))
    assert there.store.list(every=True) == []
    assert list(there.paths.files.iterdir()) == list(there.paths.temporary.iterdir()) == []
    assert there.index.documents == set()


def test_a_changed_byte_is_found(file, library):
    there = library("đó")
    with pytest.raises(BrokenCollectionFile):
        there.ingest.take_in(
            repacked(file, lambda p: p.update({PAGES: p[PAGES].replace("Học".encode(), b"Hoc")}), honest=False)
        )  # fmt: skip


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.7, 0.99])
def test_a_file_cut_off_is_refused(file, library, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BrokenCollectionFile):
        library("đó").ingest.take_in(file)


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_is_refused_or_harmless(full, file, library, seed):
    generator = np.random.default_rng(seed)
    content = bytearray(file.read_bytes())
    for place in generator.integers(0, len(content), 3):
        content[place] ^= int(generator.integers(1, 256))
    file.write_bytes(content)
    there = library("đó")
    try:
        there.ingest.take_in(file)
    except BrokenCollectionFile:
        assert there.store.list(every=True) == []
    else:  # the damage lies where zip keeps nothing of ours
        assert rows(there, "passages") == rows(
            full, "passages", "document_id IN (SELECT id FROM documents WHERE deleted_at IS NULL"
            " AND conversation IS NULL)",
        )  # fmt: skip


def test_a_symlink_is_refused(file, library):
    def link(archive: zipfile.ZipFile, name: str) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")

    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        parts = {name: archive.read(name) for name in names}
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            if name == names[0]:
                link(archive, name)
            else:
                archive.writestr(name, parts[name])
    with pytest.raises(BrokenCollectionFile):
        library("đó").ingest.take_in(file)


def test_a_bomb_is_refused_before_it_is_unpacked(file, library, monkeypatch):
    monkeypatch.setattr(importing, "_SMALL", 1_000_000)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            packing = zipfile.ZIP_STORED if name.startswith(ORIGINALS) else zipfile.ZIP_DEFLATED
            bomb = bytes(50_000_000) if name == PAGES else content
            archive.writestr(name, bomb, packing)
    monkeypatch.setattr(importing.CollectionFile, "check", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(BrokenCollectionFile):
        library("đó").ingest.take_in(file)


def test_a_directory_that_would_fill_the_memory_is_not_read(file, library, monkeypatch):
    content = bytearray(file.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = (0xF000_0000).to_bytes(4, "little")
    file.write_bytes(content)
    monkeypatch.setattr(importing.zipfile, "ZipFile", lambda *_: pytest.fail("read"))
    with pytest.raises(BrokenCollectionFile):
        library("đó").ingest.take_in(file)


def test_a_file_of_a_newer_hearth_says_so(file, library):
    def newer(parts: dict[str, bytes]) -> None:
        parts[MANIFEST] = json.dumps({**json.loads(parts[MANIFEST]), "version": 99}).encode()

    with pytest.raises(BrokenCollectionFile, match="newer Hearth"):
        library("đó").ingest.take_in(repacked(file, newer))


def test_what_is_no_export_says_so(library, tmp_path):
    (other := tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(BrokenCollectionFile):
        library("đó").ingest.take_in(other)
    with pytest.raises(NotFoundError):
        library("kia").ingest.take_in(tmp_path / "không có.zip")
