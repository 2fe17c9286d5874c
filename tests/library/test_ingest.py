"""The way in: acknowledged means safe, once means once, replaced means gone, refused means told."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest

from chatbot.database import Database
from chatbot.errors import Cancelled, ChildDied, DiskFullError, NotFoundError
from chatbot.library.documents import failure_text, label, warning_text
from chatbot.library.ingest import Ingest, files_in
from chatbot.library.store import DocumentStore
from chatbot.settings import SAMPLES

LAW = "Điều 1. Học phí\nNộp trong 4 tuần.\nĐiều 2. Học bổng\nXét theo học kỳ.\n"


def process_all(ingest: Ingest) -> None:
    for document_id in ingest.unfinished():
        ingest.process(document_id)


def files_of(store: DocumentStore) -> set[str]:
    return {f.name for f in (store.originals.own_folder / "files").iterdir()}


def vectors_of(database: Database, stamp: str) -> dict[str, np.ndarray]:
    """The vectors of that embedder, by passage."""
    rows = database.rows("SELECT passage_id, vector FROM vectors WHERE stamp = ?", (stamp,))
    return {r["passage_id"]: np.frombuffer(r["vector"], dtype="<f4") for r in rows}


def test_a_document_goes_all_the_way(ingest, store, index, database):
    (document,) = ingest.add([("thư mục/luật.txt", LAW.encode())])
    assert (document.state, document.name) == ("waiting", "luật.txt")
    progress: list[float] = []
    done = ingest.process(document.id, progress.append)
    assert (done.state, done.pages, done.passages, done.language) == ("ready", 1, 2, "vi")
    assert store.contents.text(document.id) == LAW
    passages = store.contents.passages(document.id)
    assert "".join(p.text for p in passages) == LAW
    assert [p.path for p in passages] == ["Điều 1. Học phí", "Điều 2. Học bổng"]
    assert index.documents == {document.id}
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    vectors = vectors_of(database, index.stamp)
    assert vectors.keys() == {p.id for p in passages}
    assert [v.shape for v in vectors.values()] == [(4,), (4,)]
    assert store.file(document.id).read_bytes() == LAW.encode()


def test_the_same_content_is_stored_once(ingest, store, index, tmp_path):
    (first,) = ingest.add([("a.txt", LAW.encode())])
    process_all(ingest)
    (again,) = ingest.add([("b.txt", io.BytesIO(LAW.encode()))])
    (path_copy := tmp_path / "c.txt").write_text(LAW, encoding="utf-8")
    (third,) = ingest.add([path_copy])
    assert again.id == third.id == first.id
    assert again.state == "ready"
    assert len(store.list()) == 1
    assert len(files_of(store)) == 1
    assert index.embedded == 2


def test_copies_in_one_folder_are_one_document_with_a_row_for_each(ingest, store, tmp_path):
    for name in ("một.txt", "hai.txt"):
        (tmp_path / name).write_text(LAW, encoding="utf-8")
    rows = ingest.add([tmp_path])
    assert {row.name for row in rows} >= {"một.txt", "hai.txt"}
    assert len({row.id for row in rows if row.sha256}) == 1 == len(store.list())


def test_another_collection_or_conversation_is_another_document(ingest, store):
    ids = {
        ingest.add([("a.txt", LAW.encode())], collection, conversation)[0].id
        for collection, conversation in [
            ("documents", None),
            ("luật", None),
            ("documents", "c1"),
            ("documents", "c2"),
        ]
    }
    assert len(ids) == 4
    assert len(files_of(store)) == 1
    assert len(store.list()) == 2
    assert len(store.list(conversation="c1")) == 1
    assert len(store.list(every=True)) == 4
    assert {c.name for c in store.collections.all()} >= {"documents", "luật", "samples"}


def test_changed_content_replaces_and_the_old_answers_until_then(ingest, store, index, tmp_path):
    path = tmp_path / "quy chế.txt"
    path.write_text(LAW, encoding="utf-8")
    (old,) = ingest.add([path])
    process_all(ingest)
    path.write_text(LAW.replace("4 tuần", "6 tuần"), encoding="utf-8")
    (new,) = ingest.add([path])
    assert new.id != old.id
    assert store.get(old.id).state == "ready"
    assert index.documents == {old.id}
    process_all(ingest)
    assert [d.id for d in store.list()] == [new.id]
    assert index.documents == {new.id}
    assert files_of(store) == {new.sha256}


def test_files_of_one_name_in_two_folders_do_not_replace_each_other(ingest, store, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "luật.txt").write_text(f"Văn bản {folder}", encoding="utf-8")
    ingest.add([tmp_path / "a", tmp_path / "b"])
    process_all(ingest)
    assert len(store.list()) == 2


def test_a_newer_version_that_waits_puts_out_the_one_that_waited(ingest, store):
    ingest.add([("a.txt", b"one")])
    (second,) = ingest.add([("a.txt", b"two")])
    assert [d.id for d in store.list()] == [second.id]


def test_a_file_that_now_holds_what_another_document_holds_leaves_nothing_stale(
    ingest, store, tmp_path
):
    (tmp_path / "a.txt").write_text("nội dung A", encoding="utf-8")
    (tmp_path / "b.txt").write_text("nội dung B", encoding="utf-8")
    stale, kept = ingest.add([tmp_path / "a.txt", tmp_path / "b.txt"])
    process_all(ingest)
    (tmp_path / "a.txt").write_text("nội dung B", encoding="utf-8")
    assert [d.id for d in ingest.add([tmp_path / "a.txt"])] == [kept.id]
    assert [d.id for d in store.list()] == [kept.id]
    assert stale.id != kept.id


def test_a_folder_gives_a_row_for_every_file(ingest, store, tmp_path):
    folder = tmp_path / "nguồn"
    for name, content in {
        "một.txt": b"one", "sâu/hơn/hai.md": b"# two", "ảnh.gif": b"GIF89a\0\0", "rỗng.txt": b"",
        ".ẩn.txt": b"hidden", "Thumbs.db": b"x", "~$luật.docx": b"lock", ".git/config": b"x",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    documents = ingest.add([folder])
    assert {(d.name, d.state) for d in documents} == {
        ("một.txt", "waiting"), ("hai.md", "waiting"), ("ảnh.gif", "failed"), ("rỗng.txt", "failed"),
    }  # fmt: skip
    refused = next(d for d in documents if d.name == "ảnh.gif")
    assert refused.failure["code"] == "unsupported_document"
    assert "ảnh.gif" in refused.error
    assert failure_text(refused, "en") == refused.error
    assert len(ingest.add([folder])) == 4
    assert len(store.list()) == 4, "a second visit adds no second row"


def test_a_path_that_does_not_exist_is_told(ingest, tmp_path):
    with pytest.raises(NotFoundError):
        ingest.add([tmp_path / "không có"])


def test_an_unreadable_file_fails_with_its_reason_and_can_be_tried_again(ingest, store, index):
    (document,) = ingest.add([("hỏng.pdf", b"%PDF-1.7 broken")])
    failed = ingest.process(document.id)
    assert failed.state == "failed"
    assert failed.failure["code"] == "unreadable_document"
    assert ingest.unfinished() == ()
    assert index.documents == set()
    assert ingest.add([("hỏng.pdf", b"%PDF-1.7 broken")])[0].state == "waiting"
    assert ingest.unfinished() == (document.id,)


def test_a_scan_is_ready_with_a_warning_in_both_languages(ingest, store, make_pdf):
    (document,) = ingest.add([make_pdf([[], []], "quét.pdf")])
    done = ingest.process(document.id)
    assert (done.state, done.passages) == ("ready", 0)
    assert warning_text(done, "en")


def test_cancel_keeps_nothing_half_read(ingest, store, index):
    (document,) = ingest.add([("a.txt", LAW.encode() * 400)])
    with pytest.raises(Cancelled):
        ingest.process(document.id, cancelled=lambda: True)
    assert store.get(document.id).failure["code"] == "cancelled"
    assert store.contents.passages(document.id) == ()
    ingest.read_again(document.id)
    assert ingest.process(document.id).state == "ready"


def test_an_embedder_that_dies_leaves_the_document_waiting(ingest, store, index, monkeypatch):
    (document,) = ingest.add([("a.txt", LAW.encode())])
    monkeypatch.setattr(
        index,
        "embed",
        lambda texts, kind: (_ for _ in ()).throw(ChildDied("SIGSEGV", name="index")),
    )
    with pytest.raises(ChildDied):
        ingest.process(document.id)
    waiting = store.get(document.id)
    assert waiting.state == "waiting"
    assert waiting.failure["code"] == "child_died"
    monkeypatch.undo()
    assert ingest.process(document.id).state == "ready"
    assert store.get(document.id).failure is None


def test_an_index_that_misses_the_news_does_not_fail_the_document(
    ingest, store, index, monkeypatch
):
    (document,) = ingest.add([("a.txt", LAW.encode())])
    monkeypatch.setattr(
        index, "add", lambda ids: (_ for _ in ()).throw(ChildDied("SIGSEGV", name="index"))
    )
    assert ingest.process(document.id).state == "ready"


def test_another_embedder_chosen_meanwhile_embeds_anew(ingest, index, database, monkeypatch):
    (document,) = ingest.add([("a.txt", LAW.encode())])
    embed = index.embed

    def change_once(texts, kind):
        vectors = embed(texts, kind)
        if index.stamp == "test@1/4":
            index.stamp = "other@1/4"
        return vectors

    monkeypatch.setattr(index, "embed", change_once)
    ingest.process(document.id)
    assert len(vectors_of(database, "other@1/4")) == 2
    assert vectors_of(database, "test@1/4") == {}


def test_a_document_removed_while_it_is_read_stays_removed(ingest, store, index, monkeypatch):
    (document,) = ingest.add([("a.txt", LAW.encode())])
    embed = index.embed

    def remove_meanwhile(texts, kind):
        store.trash.purge(document.id)
        return embed(texts, kind)

    monkeypatch.setattr(index, "embed", remove_meanwhile)
    ingest.process(document.id)
    assert store.list(every=True) == []
    assert index.documents == set()


def test_without_room_nothing_is_stored(database, paths, reader, index, tmp_path):
    store = DocumentStore(database, paths, spare_bytes=1 << 60)
    ingest = Ingest(store, reader, index)
    with pytest.raises(DiskFullError):
        ingest.add([("a.txt", LAW.encode())])
    assert store.list(every=True) == []
    assert files_of(store) == set()
    assert list(paths.temporary.iterdir()) == []


def test_trash_restore_and_purge(ingest, store, index):
    first, second = ingest.add([("a.txt", LAW.encode()), ("b.txt", b"other words")])
    process_all(ingest)
    ingest.remove(first.id)
    assert index.documents == {second.id}
    assert [d.id for d in store.list()] == [second.id]
    erased = [p.id for p in store.contents.passages(first.id)]
    assert erased
    assert store.contents.passages_by_id(erased) == {}
    assert [d.id for d in store.trash.documents()] == [first.id]
    assert ingest.restore(first.id) == (first.id,)
    assert index.documents == {first.id, second.id}
    ingest.purge(first.id)
    assert index.documents == {second.id}
    assert files_of(store) == {second.sha256}
    with pytest.raises(NotFoundError):
        store.get(first.id)


def test_what_was_added_again_is_not_restored_twice(ingest, store):
    (first,) = ingest.add([("a.txt", LAW.encode())])
    ingest.remove(first.id)
    (second,) = ingest.add([("a.txt", LAW.encode())])
    assert second.id != first.id
    assert ingest.restore(first.id) == ()
    assert [d.id for d in store.list()] == [second.id]


def test_purged_text_is_gone_from_the_disk(ingest, store, paths, make_docx):
    marker = "MARKERqzx7"
    docx = make_docx(f"<w:p><w:r><w:t>{marker} trong Word</w:t></w:r></w:p>", "a.docx")
    ingest.add(
        [docx, *((f"{n}.txt", f"{marker} {n}. {LAW}".encode() * 30) for n in range(10)),
         ("a.html", f"<!doctype html><p>{marker}".encode()), ("a.md", f"# {marker}".encode())]
    )  # fmt: skip
    process_all(ingest)

    def on_disk() -> list[Path]:
        files = [f for f in paths.data.rglob("*") if f.is_file()]
        return [f for f in files if marker.encode() in f.read_bytes()]

    assert on_disk()
    ingest.purge(*(d.id for d in store.list()))
    assert on_disk() == []


def test_neighbours_of_a_passage(ingest, store):
    text = "".join(f"Điều {n}. Tên\nNội dung số {n}.\n" for n in range(1, 6))
    (document,) = ingest.add([("a.txt", text.encode())])
    process_all(ingest)
    ids = [p.id for p in store.contents.passages(document.id)]
    before, passage, after = store.contents.neighbours(ids[2])
    assert [p.ordinal for p in before] == [1]
    assert passage.path == "Điều 3. Tên"
    assert [p.ordinal for p in after] == [3]
    assert [len(side) for side in store.contents.neighbours(ids[0], 2, 2)[::2]] == [0, 2]
    with pytest.raises(NotFoundError):
        store.contents.neighbours("nothing-1")


def test_a_stray_original_is_cleared_at_the_next_start(store, database, paths):
    (paths.files / ("0" * 64)).write_bytes(b"left by a crash")
    (paths.temporary / "add-half").write_bytes(b"half a copy")
    DocumentStore(database, paths)
    assert list(paths.files.iterdir()) == []
    assert list(paths.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\Users\\An\\luật.pdf", "luật.pdf"), ("a\x00b\n.txt", "ab.txt"),
        ("", "?"), ("..", ".."), ("x" * 999, "x" * 255), ("e\u0309.txt", "ẻ.txt"), ("a.txt:$s.pdf", "a.txt:$s.pdf"),
    ],
)  # fmt: skip
def test_a_name_is_only_a_label(ingest, store, paths, name, shown):
    assert label(name) == shown
    (document,) = ingest.add([(name, b"content")])
    assert document.name == shown
    outside = [
        f for f in paths.data.parent.rglob("*") if f.is_file() and not f.is_relative_to(paths.data)
    ]
    assert outside == []
    assert files_of(store) == {document.sha256}


def test_an_unchanged_folder_is_recognised_quickly(ingest, tmp_path):
    folder = tmp_path / "nhiều"
    folder.mkdir()
    for n in range(300):
        (folder / f"{n}.txt").write_text(f"{n} {LAW}", encoding="utf-8")
    ingest.add([folder])
    started = time.monotonic()
    assert len(ingest.add([folder])) == 300
    assert time.monotonic() - started < 2


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who can be refused")
def test_a_file_that_may_not_be_opened_is_told(ingest, tmp_path):
    (tmp_path / "khoá.txt").write_text("x")
    (tmp_path / "khoá.txt").chmod(0)
    assert ingest.add([tmp_path / "khoá.txt"])[0].failure["code"] == "unreadable_document"


def test_the_samples_are_what_they_promise(ingest, store):
    documents = ingest.add([SAMPLES], "samples")
    process_all(ingest)
    regulation, handbook = sorted(
        (store.get(d.id) for d in documents), key=lambda d: d.language, reverse=True
    )
    assert {d.state for d in (regulation, handbook)} == {"ready"}
    assert (regulation.language, handbook.language) == ("vi", "en")
    assert regulation.pages >= 8
    assert all(f.stat().st_size < 300_000 for f in files_in(SAMPLES, SAMPLES.parent))
    (warned,) = [
        p for p in store.contents.passages(regulation.id) if "Điều 16. Các trường hợp" in p.path
    ]
    assert "sinh viên bị cảnh báo học vụ nếu" in warned.text
    assert warned.page == 6
    assert "1,20" in warned.text
    assert sum(p.path.count("Điều ") == 1 for p in store.contents.passages(regulation.id)) >= 25
    assert any(
        "13. Leaving us" in p.path and "13.1 Notice period" in p.text
        for p in store.contents.passages(handbook.id)
    )


def test_hearths_own_copies_are_not_added_again(ingest, paths, tmp_path):
    """Adding the folder that holds the data folder takes the person's files, not Hearth's."""
    (tmp_path / "ghi chú.txt").write_text("Ghi chú của tôi.", encoding="utf-8")
    first = ingest.add([tmp_path / "ghi chú.txt"])
    assert (paths.files / first[0].sha256).exists()
    again = ingest.add([tmp_path])
    assert [d.id for d in again] == [first[0].id]
