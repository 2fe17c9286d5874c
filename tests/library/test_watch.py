"""Linked folders: documents follow files, nothing is removed unasked, nothing is read twice."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatbot.database import Database
from chatbot.errors import ChildDied, DiskFullError, FolderError, NotFoundError
from chatbot.library.changes import Borne, Known, Seen, compare, differing, worth_hashing
from chatbot.library.folder_sync import Report
from chatbot.library.ingest import Ingest
from chatbot.library.links import LinkedFolder
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.library.watch import LinkedFolders, is_remote
from chatbot.settings import Paths
from tests.library.conftest import RecordingIndex

PATIENCE_SECONDS = 30


class Room:
    """A library with linked folders; what waits is read when a test says so."""

    def __init__(self, database: Database, paths: Paths, reader: Reader) -> None:
        self.database = database
        self.store = DocumentStore(database, paths, spare_bytes=0)
        self.index = RecordingIndex()
        self.ingest = Ingest(self.store, reader, self.index)
        self.asked_to_read = 0
        self.folders = LinkedFolders(database, self.store, lambda: self.ingest, self._note)

    def _note(self) -> None:
        self.asked_to_read += 1

    def read(self) -> None:
        for document_id in self.ingest.unfinished():
            self.ingest.process(document_id)

    def sync(self, folder: LinkedFolder) -> Report:
        report = self.folders.sync(folder.id)
        self.read()
        return report

    def state(self) -> LinkedFolder:
        (folder,) = self.folders.list()
        return folder

    def documents(self) -> dict[str, str]:
        """Name → id of every document that is ready."""
        return {d.name: d.id for d in self.store.list() if d.state == "ready"}


@pytest.fixture
def room(database: Database, paths: Paths, reader: Reader) -> Room:
    return Room(database, paths, reader)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "Quy chế (bản mới)"
    folder.mkdir()
    return folder


_clock = itertools.count(1_600_000_000)


def write(file: Path, text: str, *, settled: bool = True) -> Path:
    """Write a file that looks as if it had been written long ago, each time a second later."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    if settled:
        moment = next(_clock)
        os.utime(file, (moment, moment))
    return file


def law(number: object) -> str:
    return f"Điều {number}. Thời giờ\n\nThư viện mở cửa lúc {number} giờ sáng.\n"


# --- the pure comparison --------------------------------------------------------------------


def known(**files: str) -> dict[str, Known]:
    return {path: Known(len(content), 1, content) for path, content in files.items()}


def test_added_changed_renamed_and_missing_are_told_apart():
    changes = compare(
        known(same="1", edited="2", old_name="3", gone="4"),
        {"same": "1", "edited": "5", "new_name": "3", "fresh": None},
        [Borne("d1", "same", "1"), Borne("d2", "edited", "2"), Borne("d3", "old_name", "3"),
         Borne("d4", "gone", "4")],
    )  # fmt: skip
    assert changes.added == ("fresh",)
    assert changes.changed == ("edited",)
    assert changes.renamed == {"old_name": "new_name"}
    assert changes.moves == {"d3": "new_name"}
    assert changes.missing == ("gone",)
    assert changes.forgotten == ()


def test_a_document_whose_content_lies_elsewhere_too_is_not_missing():
    documents = [Borne("d", "a", "1")]
    here = compare(known(a="1", b="1"), {"b": "1"}, documents)
    assert (here.moves, here.missing, here.forgotten) == ({"d": "b"}, (), ("a",))
    in_another = compare(known(a="1"), {}, documents, {"1": "/other/a"})
    assert (in_another.moves, in_another.missing) == ({"d": "/other/a"}, ())


def test_files_that_change_places_keep_their_documents():
    changes = compare(
        known(a="1", b="2"), {"a": "2", "b": "1"}, [Borne("d1", "a", "1"), Borne("d2", "b", "2")]
    )
    assert changes.moves == {"d1": "b", "d2": "a"}
    assert changes.missing == ()


def test_a_missing_file_without_a_document_is_forgotten_and_a_refused_one_goes_with_its_file():
    changes = compare(known(a="1", film=""), {}, [Borne("d", "film", "")])
    assert (changes.missing, changes.forgotten, changes.emptied) == ((), ("a", "film"), ("d",))


def test_only_what_may_hold_a_known_content_is_hashed():
    before = {"same": Known(10, 1, "x"), "saved": Known(20, 1, "y"), "film": Known(30, 1, "")}
    now = {"same": Seen(10, 1), "saved": Seen(21, 2), "film": Seen(30, 2), "copy": Seen(20, 3),
           "other": Seen(30, 3)}  # fmt: skip
    different = differing(before, now)
    assert sorted(different) == ["copy", "film", "other", "saved"]
    assert worth_hashing(before, now, different) == ["copy"]


# --- one sync -------------------------------------------------------------------------------


def test_a_linked_folder_is_read_and_an_unchanged_one_is_left_alone(room: Room, source: Path):
    write(source / "a.txt", law(7))
    write(source / "sâu" / "b.txt", law(8))
    folder = room.folders.link(source, "luật")
    report = room.sync(folder)
    assert [Path(p).name for p in report.added] == ["a.txt", "b.txt"]
    assert {(d.name, d.collection, d.state) for d in room.store.list()} == {
        ("a.txt", "luật", "ready"),
        ("b.txt", "luật", "ready"),
    }
    assert room.asked_to_read
    before, embedded = room.documents(), room.index.embedded
    report = room.sync(folder)
    assert (report.added, report.changed, report.missing, report.documents) == ((), (), (), ())
    assert (room.documents(), room.index.embedded) == (before, embedded)
    assert (room.state().files, room.state().unread, room.state().state) == (2, 0, "current")


def test_the_old_version_answers_until_the_new_one_is_ready(room: Room, source: Path):
    file = write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    (old,) = room.store.list()
    write(file, law(9))
    assert room.folders.sync(folder.id).changed == (str(file),)
    assert {(d.id == old.id, d.state) for d in room.store.list()} == {
        (True, "ready"),
        (False, "waiting"),
    }
    assert room.state().state == "reading"
    room.read()
    (new,) = room.store.list()
    assert "lúc 9 giờ" in room.store.contents.text(new.id)
    assert room.index.documents == {new.id}


def test_a_change_within_one_tick_of_the_clock_is_seen(room: Room, source: Path):
    file = write(source / "a.txt", law(7), settled=False)
    folder = room.folders.link(source)
    room.sync(folder)
    stamp = file.stat().st_mtime_ns
    file.write_text(law(8), encoding="utf-8")  # as long as before
    os.utime(file, ns=(stamp, stamp))
    assert room.sync(folder).changed == (str(file),)
    assert "lúc 8 giờ" in room.store.contents.text(room.documents()["a.txt"])


def test_renaming_reads_and_embeds_nothing(room: Room, source: Path):
    write(source / "cũ" / "a.txt", law(7))
    write(source / "cũ" / "b.txt", law(8))
    folder = room.folders.link(source)
    room.sync(folder)
    before, embedded = room.documents(), room.index.embedded
    (source / "cũ").rename(source / "mới")
    (source / "mới" / "b.txt").rename(source / "c.txt")
    report = room.folders.sync(folder.id)
    assert {Path(old).name: Path(new).name for old, new in report.renamed.items()} == {
        "a.txt": "a.txt",
        "b.txt": "c.txt",
    }
    assert (report.added, report.missing, report.documents) == ((), (), ())
    assert room.documents() == {"a.txt": before["a.txt"], "c.txt": before["b.txt"]}
    assert {d.origin for d in room.store.list()} == {
        str(source / "mới" / "a.txt"),
        str(source / "c.txt"),
    }
    assert room.index.embedded == embedded
    assert room.sync(folder).documents == ()


def test_what_is_gone_waits_for_review_then_goes_to_the_trash_and_comes_back(
    room: Room, source: Path
):
    write(source / "a.txt", law(7))
    doomed = write(source / "b.txt", law(8))
    folder = room.folders.link(source)
    room.sync(folder)
    doomed.unlink()
    assert room.sync(folder).missing == (str(doomed),)
    assert set(room.documents()) == {"a.txt", "b.txt"}
    (missing,) = room.folders.missing(folder.id)
    assert missing.path == str(doomed)
    assert room.state().missing == 1

    removed = room.folders.remove_missing(folder.id)
    assert set(room.documents()) == {"a.txt"}
    assert room.folders.missing(folder.id) == ()
    assert room.sync(folder).missing == ()
    assert room.ingest.restore(*removed) == removed
    assert set(room.documents()) == {"a.txt", "b.txt"}
    assert room.sync(folder).missing == (), "what was brought back is no longer the folder's affair"


def test_what_is_gone_can_be_kept_one_by_one_or_all(room: Room, source: Path):
    files = [write(source / f"{number}.txt", law(number)) for number in range(1, 4)]
    folder = room.folders.link(source)
    room.sync(folder)
    for file in files:
        file.unlink()
    room.sync(folder)
    room.folders.keep_missing(folder.id, str(files[0]))
    assert room.sync(folder).missing == (str(files[1]), str(files[2]))
    room.folders.keep_missing(folder.id)
    assert room.sync(folder).missing == ()
    assert set(room.documents()) == {"1.txt", "2.txt", "3.txt"}


def test_a_missing_file_that_comes_back_is_no_longer_missing(room: Room, source: Path):
    file = write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    before = room.documents()
    shutil.move(file, source.parent / "a.txt")
    assert room.sync(folder).missing
    shutil.move(source.parent / "a.txt", source / "sau này.txt")
    report = room.sync(folder)
    assert report.renamed == {str(file): str(source / "sau này.txt")}
    assert room.documents() == {"sau này.txt": before["a.txt"]}
    assert room.state().missing == 0


def test_a_folder_that_is_not_there_is_not_an_empty_one(room: Room, source: Path):
    write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    away = source.rename(source.parent / "ổ đĩa đã rút")
    report = room.sync(folder)
    assert (report.reachable, report.missing) == (False, ())
    assert room.state().state == "unreachable"
    assert set(room.documents()) == {"a.txt"}

    source.mkdir()  # the empty place where a disk was: other files, another device
    room.folders._links.change(folder.id, device="another")
    assert room.sync(folder).reachable is False
    source.rmdir()
    away.rename(source)
    assert room.sync(folder).reachable
    assert room.state().state == "current"
    assert room.state().missing == 0


def test_files_that_cannot_be_looked_at_are_not_gone(room: Room, source: Path, monkeypatch):
    """As in a subfolder whose rights were taken away, or when the network fails in the middle of a look."""
    file = write(source / "kín" / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    before = room.documents()
    shutil.move(source / "kín", source.parent / "kín")
    lstat = os.lstat

    def refused(path, **options):
        if str(path).startswith(str(source / "kín")):
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", refused)
        assert room.sync(folder).missing == ()
    shutil.move(source.parent / "kín", source / "kín")
    report = room.sync(folder)
    assert (report.missing, report.added, room.documents()) == ((), (), before)
    file.unlink()
    assert room.sync(folder).missing == (str(file),)


def test_a_file_that_another_program_holds_is_tried_again(room: Room, source: Path, monkeypatch):
    file = write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    opened = Path.open

    def held(path, *arguments, **options):
        if path == file:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", held)
        room.sync(folder)
        (refused,) = room.store.list()
        assert (refused.failure or {})["code"] == "unreadable_document"
    room.sync(folder)
    assert set(room.documents()) == {"a.txt"}
    assert len(room.store.list()) == 1


def test_hidden_half_written_and_own_files_and_circles_are_left_out(room: Room, source: Path):
    write(source / "a.txt", law(7))
    for name in (".bí mật.txt", "~$a.docx", "b.txt.part", "c.pdf.crdownload", ".git/d.txt"):
        write(source / name, law(8))
    with_link = hasattr(os, "symlink") and os.name != "nt"
    if with_link:
        (source / "vòng").symlink_to(source, target_is_directory=True)
    shutil.move(
        room.store.originals.own_folder / "logs", source / "logs"
    )  # nothing of ours is in there
    folder = room.folders.link(source)
    assert room.sync(folder).added == (str(source / "a.txt"),)


def test_refused_files_say_why_and_go_with_their_file(room: Room, source: Path):
    film = source / "phim.mkv"
    film.write_bytes(bytes(range(256)) * 20)
    folder = room.folders.link(source)
    room.sync(folder)
    (refused,) = room.store.list()
    assert (refused.state, refused.failure and refused.failure["code"]) == (
        "failed",
        "unsupported_document",
    )
    os.utime(film, (1, 1))
    room.sync(folder)
    assert len(room.store.list()) == 1
    film.unlink()
    assert room.sync(folder).missing == ()
    assert room.store.list() == []


def test_a_document_the_person_deleted_stays_deleted(room: Room, source: Path):
    write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    room.ingest.remove(*room.documents().values())
    room.sync(folder)
    (source / "a.txt").rename(source / "b.txt")
    room.sync(folder)
    assert room.documents() == {}
    write(source / "b.txt", law(8))
    room.sync(folder)
    assert set(room.documents()) == {"b.txt"}


def test_a_file_that_was_dropped_before_belongs_to_the_folder_from_then_on(
    room: Room, source: Path
):
    (dropped,) = room.ingest.add([("kéo thả.txt", law(7).encode())])
    room.read()
    file = write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    assert room.documents() == {"a.txt": dropped.id}
    write(file, law(8))
    room.sync(folder)
    assert len(room.store.list()) == 1


def test_two_folders_with_the_same_file_share_a_document_and_neither_takes_it_from_the_other(
    room: Room, tmp_path: Path
):
    one, two = tmp_path / "một", tmp_path / "hai"
    first, second = write(one / "a.txt", law(7)), write(two / "b.txt", law(7))
    links = [room.folders.link(folder) for folder in (one, two)]
    for link in links:
        room.sync(link)
    (document,) = room.store.list()
    write(first, law(8))
    room.sync(links[0])
    assert {d.origin for d in room.store.list()} == {str(first), str(second)}
    assert room.documents()["b.txt"] == document.id
    assert room.folders.unlink(links[1].id, remove=True) == (document.id,)
    assert set(room.documents()) == {"a.txt"}


def test_ending_a_link_keeps_the_documents_or_moves_them_to_the_trash(room: Room, source: Path):
    write(source / "a.txt", law(7))
    (own,) = room.ingest.add([("của tôi.txt", law(9).encode())])
    folder = room.folders.link(source)
    room.sync(folder)
    assert room.folders.unlink(folder.id) == ()
    assert set(room.documents()) == {"a.txt", "của tôi.txt"}
    folder = room.folders.link(source)
    room.sync(folder)
    (removed,) = room.folders.unlink(folder.id, remove=True)
    assert room.documents() == {"của tôi.txt": own.id}
    assert room.folders.list() == []
    assert room.ingest.restore(removed) == (removed,)


def test_what_cannot_be_linked_is_said(room: Room, source: Path, tmp_path: Path):
    file = write(source / "a.txt", law(7))
    for wrong in (
        file,
        tmp_path / "không có",
        Path("a\0b"),
        room.store.originals.own_folder / "files",
    ):
        with pytest.raises(FolderError):
            room.folders.link(wrong)
    folder = room.folders.link(source, "luật")
    assert room.folders.link(source, "luật").id == folder.id
    with pytest.raises(FolderError):
        room.folders.link(source, "khác")
    assert room.folders.at(source).id == folder.id
    room.folders.unlink(folder.id)
    with pytest.raises(NotFoundError):
        room.folders.at(source)


def test_a_renamed_collection_keeps_its_folder(room: Room, source: Path):
    write(source / "a.txt", law(7))
    folder = room.folders.link(source, "luật")
    room.sync(folder)
    room.store.collections.rename("luật", "Văn bản luật")
    write(source / "b.txt", law(8))
    room.sync(folder)
    assert {d.collection for d in room.store.list()} == {"Văn bản luật"}


def test_a_full_disk_is_told_and_made_up_for(room: Room, source: Path, monkeypatch):
    write(source / "a.txt", law(7))
    folder = room.folders.link(source)

    def full(_size: int) -> None:
        raise DiskFullError("0 MB")

    with monkeypatch.context() as patched:
        patched.setattr(room.store.originals, "require_room", full)
        with pytest.raises(DiskFullError):
            room.folders.sync(folder.id)
    assert room.state().state == "failed"
    assert isinstance(room.state().error, DiskFullError)
    room.sync(folder)
    assert room.state().state == "current"
    assert set(room.documents()) == {"a.txt"}


def test_a_reader_that_died_leaves_the_old_version_and_the_new_one_waiting(
    room: Room, source: Path, monkeypatch
):
    file = write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    room.sync(folder)
    write(file, law(8))

    def died(*_arguments: object) -> None:
        raise ChildDied("SIGKILL", name="reader")

    with monkeypatch.context() as patched:
        patched.setattr(room.ingest._reader, "read", died)
        with pytest.raises(ChildDied):
            room.sync(folder)
    assert sorted(d.state for d in room.store.list()) == ["ready", "waiting"]
    room.sync(folder)
    assert [d.state for d in room.store.list()] == ["ready"]


# --- any sequence of file operations ----------------------------------------------------------

NAMES = ["a.txt", "b.txt", "c.txt", "thư mục/a.txt"]
CONTENTS = [law(1), law(2), law(3), ""]  # the last one is refused
name, content = st.sampled_from(NAMES), st.sampled_from(CONTENTS)
operation = st.one_of(
    st.tuples(st.just("write"), name, content, st.booleans()),
    st.tuples(st.just("delete"), name),
    st.tuples(st.just("rename"), name, name),
    st.tuples(st.just("swap"), name, name),
    st.tuples(st.just("copy"), name, name),
    st.tuples(st.just("touch"), name),
    st.tuples(st.just("sync")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("read")),
    st.tuples(st.just("accept")),
)


def perform(room: Room, folder: LinkedFolder, source: Path, step: tuple) -> None:
    kind, *arguments = step
    files = [source / a for a in arguments if a in NAMES]
    if kind == "write":
        write(files[0], arguments[1], settled=arguments[2])
    elif kind == "sync":
        room.folders.sync(folder.id)
    elif kind == "read":
        room.read()
    elif kind == "accept":
        room.folders.remove_missing(folder.id)
    elif not files[0].exists() or (files[0] == files[-1] and len(files) > 1):
        return
    elif kind == "delete":
        files[0].unlink()
    elif kind == "rename":
        files[1].parent.mkdir(exist_ok=True)
        files[0].replace(files[1])
    elif kind == "copy":
        files[1].parent.mkdir(exist_ok=True)
        shutil.copy2(files[0], files[1])
    elif kind == "touch":
        os.utime(files[0], (next(_clock),) * 2)
    elif kind == "swap" and files[1].exists():
        aside = source.parent / "aside"
        files[0].replace(aside)
        files[1].replace(files[0])
        aside.replace(files[1])


@settings(
    max_examples=int(os.environ.get("HEARTH_EXAMPLES") or 40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(operation, max_size=14))
def test_after_a_sync_and_a_review_the_documents_are_the_folders_files(reader: Reader, steps):
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary).resolve() / "nguồn"
        source.mkdir()
        paths = Paths(Path(temporary).resolve() / "dữ liệu")
        paths.make()
        room = Room(Database(paths.database), paths, reader)
        folder = room.folders.link(source)
        for step in steps:
            perform(room, folder, source, step)
        room.sync(folder)
        room.folders.remove_missing(folder.id)
        room.read()

        files = {str(f): f.read_bytes() for f in source.rglob("*") if f.is_file()}
        hashes = {path: hashlib.sha256(c).hexdigest() for path, c in files.items() if c}
        documents = room.store.list()
        ready = [d for d in documents if d.state == "ready"]
        assert sorted(d.sha256 for d in ready) == sorted(set(hashes.values()))
        assert all(hashes[d.origin or ""] == d.sha256 for d in ready)
        assert all(d.name == Path(d.origin or "").name for d in ready)
        assert all(room.store.contents.text(d.id) == files[d.origin or ""].decode() for d in ready)
        assert room.index.documents == {d.id for d in ready}
        refused = sorted(d.origin or "" for d in documents if d not in ready)
        assert refused == sorted(path for path, c in files.items() if not c)
        assert room.sync(folder).documents == (), "a second look finds nothing to do"
        room.database.close()


# --- real events ------------------------------------------------------------------------------


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"in vain waited for: {what}"
        time.sleep(0.05)


@contextmanager
def watching(room: Room) -> Iterator[None]:
    room.folders.start()
    try:
        yield
    finally:
        room.folders.close()


def test_changes_on_disk_are_noticed(room: Room, source: Path):
    write(source / "a.txt", law(7))
    folder = room.folders.link(source)
    with watching(room):
        until(lambda: len(room.store.list()) == 1, "the first look")
        room.read()
        write(source / "mới" / "b.txt", law(8), settled=False)
        until(lambda: len(room.store.list()) == 2, "a file in a new subfolder")
        room.read()
        (source / "a.txt").rename(source / "c.txt")
        until(lambda: set(room.documents()) == {"b.txt", "c.txt"}, "a new name")
        (source / "c.txt").unlink()
        until(lambda: len(room.folders.missing(folder.id)) == 1, "a file to review")
        assert set(room.documents()) == {"b.txt", "c.txt"}


def test_folders_linked_paused_and_resumed_while_watching(room: Room, source: Path):
    with watching(room):
        folder = room.folders.link(source)
        room.folders.look()
        until(lambda: room.state().synced_at is not None, "the empty folder")
        room.folders.pause(folder.id)
        write(source / "a.txt", law(7), settled=False)
        assert room.state().state == "paused"
        other = write(source.parent / "khác" / "b.txt", law(8))
        room.folders.link(other.parent)
        room.folders.look()
        until(lambda: [d.name for d in room.store.list()] == ["b.txt"], "the second folder")
        room.folders.resume(folder.id)
        until(lambda: len(room.store.list()) == 2, "the resumed folder")


def test_a_folder_that_comes_back_is_watched_again(room: Room, source: Path):
    write(source / "a.txt", law(7))
    room.folders.link(source)
    with watching(room):
        until(lambda: len(room.store.list()) == 1, "the first look")
        away = source.rename(source.parent / "rút ra")
        room.folders.look()
        until(lambda: room.state().state == "unreachable", "the folder to be gone")
        write(away / "b.txt", law(8))
        away.rename(source)
        room.folders.look()
        until(lambda: len(room.store.list()) == 2, "what was added meanwhile")
        write(source / "c.txt", law(9), settled=False)
        until(lambda: len(room.store.list()) == 3, "an event from the folder that came back")


def test_where_nothing_can_be_watched_folders_are_looked_at_from_time_to_time(
    room: Room, source: Path, monkeypatch
):
    import watchfiles

    def no_more(*_arguments: object, **_options: object) -> None:
        raise OSError("OS file watch limit reached.")

    monkeypatch.setattr(watchfiles, "watch", no_more)
    monkeypatch.setattr("chatbot.library.watch._LOOK_SECONDS", 1.0)
    room.folders.link(source)
    with watching(room):
        until(lambda: room.state().state == "current", "the first look")
        write(source / "a.txt", law(7))
        until(lambda: len(room.store.list()) == 1, "a look without an event")


def test_its_own_data_and_hidden_files_in_a_linked_folder_wake_nobody(
    tmp_path: Path, reader: Reader, monkeypatch
):
    paths = Paths(tmp_path / "nhà" / "hearth")
    paths.make()
    room = Room(Database(paths.database), paths, reader)
    room.folders.link(tmp_path / "nhà")
    heard: list[set[str]] = []
    events = room.folders._events

    def overheard(folders):
        for changed in events(folders):
            heard.append(changed or set())
            yield changed

    monkeypatch.setattr(room.folders, "_events", overheard)
    with watching(room):
        until(lambda: room.state().synced_at is not None, "the first look")
        write(paths.files / "x", "y", settled=False)
        write(tmp_path / "nhà" / ".git" / "index", "z", settled=False)
        write(tmp_path / "nhà" / "a.txt", law(7), settled=False)
        until(lambda: len(room.store.list()) == 1, "the file beside the data")
        so_far = len(heard)
        until(lambda: len(heard) >= so_far + 2, "what the sync itself wrote to be heard")
    assert set().union(*heard) == {str(tmp_path / "nhà" / "a.txt")}
    assert not any(heard[so_far:])
    room.database.close()


def test_closing_does_not_wait_for_a_large_folder(room: Room, source: Path, monkeypatch):
    for number in range(200):
        write(source / f"{number}.txt", law(number))
    room.folders.link(source)
    with watching(room):
        until(lambda: len(room.store.list()) > 0, "the first files")
    assert len(room.store.list()) < 200
    folder = room.state()
    again = Room(room.database, Paths(room.store.originals.own_folder), room.ingest._reader)
    again.folders.sync(folder.id)
    assert len(again.store.list()) == 200


def test_local_folders_are_not_taken_for_remote_ones(tmp_path: Path):
    assert is_remote(tmp_path) is False
    if sys.platform == "win32":
        assert is_remote(Path(r"\\server\share\folder"))
