from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from chatbot.database import Database
from chatbot.errors import BrokenModel, Cancelled, ChatbotError, DiskFullError, ModelError
from chatbot.memory.headers import read_model
from chatbot.models import importing
from chatbot.models.files import stored
from chatbot.models.importing import import_model
from chatbot.models.store import ModelStore
from chatbot.settings import Paths
from chatbot.types import ModelArtifact
from tests.memory.building import TENSORS, folder, gguf, metadata, sharded
from tests.memory.test_gguf import part


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "Tải về" / "Frog-3B-Q4_K_M.gguf"
    made.parent.mkdir()
    made.write_bytes(gguf())
    return made


def left_behind(store: ModelStore) -> list[str]:
    return sorted(p.name for p in store.folder.iterdir())


def test_a_linked_file_stays_where_it_is(store: ModelStore, file: Path) -> None:
    model = import_model(store, file)
    assert model.linked
    assert model.path == str(file)
    assert (model.name, model.format, model.architecture) == ("Frog-3B-Q4_K_M", "gguf", "llama")
    assert model.size == file.stat().st_size
    assert model.manifest["quantisation"] == "F16"
    assert store.list() == [model]
    assert store.state(model) == "ready"
    assert [f.name for f in (store.folder / model.id).iterdir()] == ["manifest.json"]


def test_a_copied_file_lives_in_the_data_folder_byte_for_byte(
    store: ModelStore, file: Path
) -> None:
    model = import_model(store, file, link=False)
    copy = Path(model.path)
    assert copy.is_relative_to(store.folder)
    assert copy.read_bytes() == file.read_bytes()
    assert model.manifest["files"][0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.unlink()
    assert store.state(model) == "ready"
    assert read_model(copy).architecture == "llama"


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("build", [folder, sharded])
def test_a_folder_is_imported_with_tokenizer_and_settings(
    store: ModelStore, tmp_path: Path, link: bool, build: Callable[[Path], Path]
) -> None:
    source = build(tmp_path / "Llama-3.2-3B-Instruct-Frog")
    (source / "LICENSE").write_text("Apache")
    (source / "optimizer.bin").write_bytes(b"\x80\x02.")
    (source / "pytorch_model.bin.index.json").write_text("{}")
    model = import_model(store, source, link=link)
    names = {entry["name"] for entry in model.manifest["files"]}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"} <= names
    assert not any(".bin" in name for name in names)
    assert read_model(Path(model.path)).tensors == read_model(source).tensors
    assert model.id.startswith("llama-3.2-3b-instruct-frog-")


def test_all_parts_of_a_split_file_come_along(store: ModelStore, tmp_path: Path) -> None:
    first = tmp_path / "big-00001-of-00002.gguf"
    second = tmp_path / "big-00002-of-00002.gguf"
    first.write_bytes(part(0, 2, TENSORS[:2]))
    second.write_bytes(part(1, 2, TENSORS[2:]))
    model = import_model(store, second, link=False)
    assert model.name == "big"
    assert Path(model.path).name == first.name
    assert [entry["name"] for entry in model.manifest["files"]] == [first.name, second.name]
    assert read_model(Path(model.path)).parameters == model.parameters


@pytest.mark.parametrize("links", [(True, True), (False, False), (False, True)])
def test_the_same_model_twice_is_one(
    store: ModelStore, file: Path, links: tuple[bool, bool]
) -> None:
    first = import_model(store, file, link=links[0])
    assert import_model(store, file, link=links[1]) == first
    elsewhere = Path(shutil.copy(file, file.with_name("again.gguf")))
    assert import_model(store, elsewhere, link=links[1]) == first
    assert store.list() == [first]
    assert left_behind(store) == [first.id]


def test_a_copy_takes_the_place_of_a_link(store: ModelStore, file: Path) -> None:
    linked = import_model(store, file)
    store.note(linked.id, verdict={"verdict": "pass", "checks": []}, defaults={"context": 2048})
    renamed = file.rename(file.with_name("Another-name.gguf"))
    shutil.copyfile(renamed, file)
    os.utime(file, ns=(linked.manifest["files"][0]["modified_ns"],) * 2)
    copied = import_model(store, renamed, link=False)
    assert store.list() == [copied]
    assert not copied.linked
    assert (copied.id, copied.name) == (linked.id, linked.name), "others know it by these"
    assert copied.manifest["defaults"] == {"context": 2048}
    assert copied.manifest["verdict"]["verdict"] == "pass"


def test_a_copy_in_the_place_of_a_damaged_one_keeps_its_notes_but_not_the_verdict(
    store: ModelStore, file: Path
) -> None:
    copied = import_model(store, file, link=False)
    damaged = {"verdict": "fail", "checks": [{"name": "files", "verdict": "fail"}]}
    store.note(copied.id, verdict=damaged, base="another")
    again = import_model(store, file, link=False)
    assert again.id == copied.id
    assert again.manifest["base"] == "another"
    assert "verdict" not in again.manifest


def test_a_linked_file_that_became_another_model_is_listed_anew(
    store: ModelStore, file: Path
) -> None:
    before = import_model(store, file)
    file.write_bytes(gguf(metadata(llama__context_length=("u32", 4096))) + b"\0")
    assert store.state(before) == "changed"
    after = import_model(store, file)
    assert store.list() == [after]
    assert after.context == 4096


def test_a_moved_linked_file_is_found_missing_and_can_be_linked_again(
    store: ModelStore, file: Path
) -> None:
    before = import_model(store, file)
    moved = file.rename(file.parent.parent / file.name)
    assert store.state(before) == "missing"
    after = import_model(store, moved)
    assert after.id == before.id
    assert store.state(after) == "ready"
    assert store.list() == [after]


def test_a_folder_that_holds_one_gguf_means_that_file(store: ModelStore, file: Path) -> None:
    assert import_model(store, file.parent).path == str(file)
    (file.parent / "other.gguf").write_bytes(gguf())
    with pytest.raises(ModelError, match="several GGUF files"):
        import_model(store, file.parent)


def test_a_name_that_says_nothing_gives_way_to_the_headers(store: ModelStore, file: Path) -> None:
    blob = file.rename(file.with_name("sha256-" + "0" * 64))
    assert import_model(store, blob).name == "Tiny F16"


def test_progress_rises_to_one(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "BLOCK", 1000)
    told: list[float] = []
    import_model(
        store, folder(tmp_path / "m"), link=False, on_progress=lambda f, message: told.append(f)
    )
    assert told == sorted(told)
    assert len(told) > 5
    assert told[-1] == 1.0


@pytest.mark.parametrize("link", [True, False])
def test_cancelling_leaves_nothing_behind(store: ModelStore, file: Path, link: bool) -> None:
    with pytest.raises(Cancelled):
        import_model(store, file, link=link, cancelled=lambda: True)
    assert left_behind(store) == []
    assert store.list() == []


def test_a_report_that_raises_leaves_nothing_behind(store: ModelStore, file: Path) -> None:
    def report(_fraction: float, _message: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        import_model(store, file, link=False, on_progress=report)
    assert left_behind(store) == []


def test_a_disk_without_room_is_said_before_anything_is_copied(
    store: ModelStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=400_000_000))
    with pytest.raises(DiskFullError, match=r"0\.5 GB > 0\.4 GB"):
        import_model(store, file, link=False)
    assert left_behind(store) == []
    assert import_model(store, file).linked


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_behind(
    store: ModelStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        import_model(store, file, link=False)
    assert left_behind(store) == []


def test_a_file_that_changes_while_it_is_read_is_refused(store: ModelStore, file: Path) -> None:
    def grow(_fraction: float, _message: str) -> None:
        with file.open("ab") as opened:
            opened.write(b"more")

    with pytest.raises(BrokenModel, match="changed while"):
        import_model(store, file, link=False, on_progress=grow)
    assert left_behind(store) == []


def refused(where: Path, kind: str) -> Path:
    """Something that is no model Hearth can use."""
    if kind == "empty folder":
        where.mkdir()
    elif kind == "folder without tokenizer":
        (folder(where) / "tokenizer.json").unlink()
    elif kind == "classifier":
        folder(where, architectures=["BertForSequenceClassification"])
    elif kind == "gptq":
        folder(where, quantization_config={"quant_method": "gptq"})
    elif kind == "broken gguf":
        where.write_bytes(gguf()[:-100])
    elif kind == "adapter":
        where.write_bytes(gguf(metadata(general__type=("str", "adapter"))))
    elif kind == "text":
        where.write_text("xin chào")
    elif kind == "0 bytes":
        where.touch()
    return where


@pytest.mark.parametrize(
    "kind",
    ["empty folder", "folder without tokenizer", "classifier", "gptq", "broken gguf", "adapter", "text",
     "0 bytes", "nothing"],
)  # fmt: skip
@pytest.mark.parametrize("link", [True, False])
def test_what_is_no_usable_model_is_refused_and_nothing_is_stored(
    store: ModelStore, tmp_path: Path, kind: str, link: bool
) -> None:
    with pytest.raises(ModelError) as refusal:
        import_model(store, refused(tmp_path / "cái gì đó", kind), link=link)
    assert "cái gì đó" in refusal.value.text("vi") or "Tiny" in refusal.value.text("vi")
    assert left_behind(store) == []
    assert store.list() == []


def test_a_companion_that_links_outside_is_refused(store: ModelStore, tmp_path: Path) -> None:
    source = folder(tmp_path / "model")
    secret = tmp_path / "secret.txt"
    secret.write_text("private")
    try:
        (source / "notes.txt").symlink_to(secret)
    except OSError:
        pytest.skip("this system does not let us make links")
    with pytest.raises(BrokenModel, match=r"notes\.txt points outside"):
        import_model(store, source, link=False)
    assert left_behind(store) == []


# --- the store itself ---------------------------------------------------------------------------


def test_removing_a_copy_deletes_it_and_a_link_leaves_the_original(
    store: ModelStore, file: Path
) -> None:
    linked = import_model(store, file)
    store.remove(linked.id)
    assert file.exists()
    copied = import_model(store, file, link=False)
    store.remove(copied.id)
    assert not Path(copied.path).exists()
    assert store.list() == []
    assert left_behind(store) == []
    with pytest.raises(ChatbotError, match="Not found"):
        store.get(copied.id)


def test_what_was_never_finished_is_cleared_at_the_next_start_and_nothing_else(
    store: ModelStore, database: Database, paths: Paths, file: Path
) -> None:
    kept = import_model(store, file, link=False)
    begun = store.begin()
    (begun / "half.gguf").write_bytes(b"GGUF")
    own = paths.models / "Của tôi"
    own.mkdir()
    (own / "mine.gguf").write_bytes(gguf())
    again = ModelStore(database, paths)
    assert not begun.exists()
    assert (own / "mine.gguf").exists()
    assert again.list() == [kept]


def test_the_list_follows_the_manifests_when_the_table_was_lost(
    store: ModelStore, database: Database, paths: Paths, file: Path, tmp_path: Path
) -> None:
    models = [import_model(store, file), import_model(store, folder(tmp_path / "m"), link=False)]
    database.execute("DELETE FROM models")
    assert {m.id for m in ModelStore(database, paths).list()} == {m.id for m in models}


def test_a_folder_deleted_by_hand_leaves_the_list(
    store: ModelStore, database: Database, paths: Paths, file: Path
) -> None:
    model = import_model(store, file, link=False)
    shutil.rmtree(paths.models / model.id)
    assert store.state(model) == "missing"
    assert ModelStore(database, paths).list() == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "gguf", "linked": true}', "\xff"])
def test_a_damaged_manifest_leaves_its_model_out_and_the_others_in(
    store: ModelStore, database: Database, paths: Paths, file: Path, tmp_path: Path, content: str
) -> None:
    kept = import_model(store, folder(tmp_path / "m"))
    damaged = import_model(store, file, link=False)
    (paths.models / damaged.id / "manifest.json").write_text(content, encoding="latin-1")
    again = ModelStore(database, paths)
    assert again.list() == [kept]
    assert import_model(again, file, link=False).id == damaged.id
    assert len(again.list()) == 2


def test_a_moved_data_folder_keeps_its_copies(store: ModelStore, paths: Paths, file: Path) -> None:
    model = import_model(store, file, link=False)
    moved = Paths(paths.data.rename(paths.data.with_name("moved")))
    database = Database(moved.data / "other.db")
    (found,) = ModelStore(database, moved).list()
    assert found.id == model.id
    assert Path(found.path).is_relative_to(moved.models)
    assert Path(found.path).exists()
    database.close()


def test_a_model_that_cannot_be_written_into_the_list_does_not_stay(
    store: ModelStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_model: object) -> None:
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(store, "_insert", full)
    for link in (True, False):
        with pytest.raises(DiskFullError):
            import_model(store, file, link=link)
        assert left_behind(store) == []
    monkeypatch.undo()
    model = import_model(store, file, link=False)
    assert store.list() == [model]


def test_what_a_kill_between_two_steps_leaves_is_cleared_at_the_next_start(
    store: ModelStore, database: Database, paths: Paths, file: Path
) -> None:
    """A manifest that was being written anew; a download that was listed, its journal not yet deleted."""
    kept = import_model(store, file, link=False)
    half = paths.models / kept.id / ".manifest.json.k2j3h4.tmp"
    half.write_text("{")
    journal = paths.models / ".download-1234.journal"
    journal.write_text("{}")
    going_on = paths.models / ".download-5678"
    going_on.mkdir()
    going_on.with_name(".download-5678.journal").write_text("{}")
    assert ModelStore(database, paths).list() == [kept]
    assert not half.exists()
    assert not journal.exists()
    assert left_behind(store) == [".download-5678", ".download-5678.journal", kept.id]


def test_a_copy_that_was_damaged_gives_way_to_a_fresh_one(store: ModelStore, file: Path) -> None:
    damaged = import_model(store, file, link=False)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    Path(damaged.path).write_bytes(content)
    failed = {"verdict": "fail", "checks": [{"name": "files", "verdict": "fail"}]}
    store.note(damaged.id, verdict=failed)
    fresh = import_model(store, file, link=False)
    assert store.list() == [fresh]
    assert Path(fresh.path).read_bytes() == file.read_bytes()
    assert "verdict" not in fresh.manifest
    assert left_behind(store) == [fresh.id]


def test_what_is_made_anew_of_another_model_is_compared_with_that(
    store: ModelStore, file: Path, tmp_path: Path
) -> None:
    """The same bytes were here already; what they had been made from was removed."""

    def made_from(parent: str) -> ModelArtifact:
        begun = store.begin()
        shutil.copy(file, begun / file.name)
        made = {"step": "convert", "parent": parent}
        return store.add(read_model(file), [stored(begun / file.name)], begun, made=made)

    first = folder(tmp_path / "first")
    removed, listed = import_model(store, first), import_model(store, sharded(tmp_path / "second"))
    made = made_from(removed.id)
    assert made_from(listed.id) == made, "what it was made from is still here"
    store.remove(removed.id)
    again = made_from(listed.id)
    assert again.id == made.id
    assert again.manifest["made"]["parent"] == listed.id
    assert made_from(made.id) == again, "never from itself"
