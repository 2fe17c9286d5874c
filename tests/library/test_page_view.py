"""A passage where it stands: on its pages, in its text, or honestly nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.errors import NotFoundError
from chatbot.library.anchors import unpack
from chatbot.library.ingest import Ingest
from chatbot.library.page_view import PART, PageView, View
from chatbot.library.renderer import Renderer
from chatbot.library.store import DocumentStore
from chatbot.types import Document, Source
from tests.library.test_readers_ocr import needs_tesseract
from tests.library.test_readers_ocr import page as scan  # noqa: F401 - a fixture


@pytest.fixture
def views(store: DocumentStore) -> Iterator[PageView]:
    renderer = Renderer()
    yield PageView(store, renderer)
    renderer.close()


def added(ingest: Ingest, path: Path) -> Document:
    (document,) = ingest.add([path])
    return ingest.process(document.id)


def source_of(store: DocumentStore, document: Document, ordinal: int = 0) -> Source:
    p = store.contents.passages(document.id)[ordinal]
    return Source(1, p.id, document.id, document.name, p.page, p.path, p.text, 1.0)


def lit_text(views: PageView, store: DocumentStore, view: View, quotes: bool = False) -> str:
    """The words whose boxes lie in what is lit up, over all pages."""
    words = []
    for place in view.lit:
        sheet = view.sheets[place]
        page = store.contents.text(view.document.id)[sheet.start : sheet.end]
        lights = views.rectangles(view, place)[quotes]
        for box in unpack(store.contents.anchors(view.document.id, sheet.ordinal)):
            x, y = (
                (box.place.left + box.place.right) / 2,
                (box.place.top + box.place.bottom) / 2,
            )
            if any(r.left <= x <= r.right and r.top <= y <= r.bottom for r in lights):
                words.append(page[box.start : box.end])
    return " ".join(words)


LAW = [
    [(60, 700, "Dieu 1. Pham vi"), (60, 686, "Cau mot noi ve viec thu nhat va viec thu hai.")],
    [(60, 700, "Cau hai noi ve viec thu ba."), (60, 686, "Cau ba noi ve viec thu tu.")],
    [],
]


def test_a_passage_over_two_pages_is_lit_up_on_both(ingest, store, views, make_pdf):
    document = added(ingest, make_pdf(LAW))
    source = source_of(store, document)
    start = source.text.index("viec thu ba")
    view = views.open(source, [(start, start + len("viec thu ba"))])
    assert view.drawn
    assert view.anchored
    assert [s.number for s in view.sheets] == [1, 2, 3]
    assert (view.first, view.lit) == (0, (0, 1))
    assert lit_text(views, store, view) == " ".join(source.text.split())
    assert lit_text(views, store, view, quotes=True) == "viec thu ba."  # whole words
    assert views.rectangles(view, 2) == ([], [])
    assert views.picture(view, 1).width == 1400


def test_reading_again_keeps_the_light_where_the_words_are(
    ingest, store, views, make_pdf, tmp_path
):
    """The passage's id may name other words by then: only the one place that reads the same counts."""
    document = added(ingest, make_pdf(LAW))
    source = source_of(store, document)
    moved = replace(source, passage_id=f"{document.id}-7")
    assert views.open(moved).passage == views.open(source).passage
    assert views.open(replace(source, text="Cau nay khong co.")).passage is None
    twice = replace(source, text="noi ve viec")
    view = views.open(twice, [(0, 3)])
    assert (view.passage, view.quotes, view.lit, view.first) == (None, (), (), 0)
    assert views.open(replace(twice, page=2)).first == 1
    assert views.rectangles(view, 0) == ([], [])


def test_a_document_read_by_an_older_hearth_is_shown_without_light(
    ingest, store, views, make_pdf, database
):
    document = added(ingest, make_pdf(LAW))
    database.execute("UPDATE pages SET anchors = NULL")
    database.execute("UPDATE documents SET headings = NULL")
    view = views.open(source_of(store, document))
    assert view.drawn
    assert not view.anchored
    assert view.lit == (0, 1)
    assert views.rectangles(view, 0) == ([], [])
    ingest.read_again(document.id)
    ingest.process(document.id)
    assert views.open(source_of(store, document)).anchored


def test_what_is_gone_or_in_the_trash_cannot_be_opened(ingest, store, views, make_pdf):
    document = added(ingest, make_pdf(LAW))
    source = source_of(store, document)
    ingest.remove(document.id)
    with pytest.raises(NotFoundError):
        views.open(source)
    ingest.purge(document.id)
    with pytest.raises(NotFoundError):
        views.open(source)


def test_a_text_is_shown_with_its_headings_and_the_passage_marked(ingest, store, views, tmp_path):
    path = tmp_path / "ghi chép.md"
    path.write_text(
        "# Nội quy\n\nMở đầu.\n\n## Giờ học\n\nHọc từ **7 giờ**. <b>Đúng giờ.</b>\n",
        encoding="utf-8",
    )
    document = added(ingest, path)
    passages = store.contents.passages(document.id)
    ordinal = next(p.ordinal for p in passages if "7 giờ" in p.text)
    source = source_of(store, document, ordinal)
    at = source.text.index("Học từ")
    view = views.open(source, [(at, at + len("Học từ"))])
    assert not view.drawn
    blocks = views.blocks(view, view.first)
    shown = ["".join(text for text, _ in b.pieces) for b in blocks]
    assert (blocks[0].level, shown[0]) == (1, "Nội quy")
    assert (2, "Giờ học") in [(b.level, text) for b, text in zip(blocks, shown, strict=True)]
    assert "<b>Đúng giờ.</b>" in shown[-1]  # as text, whatever it looks like
    assert [text for b in blocks for text, kind in b.pieces if kind == "quote"] == ["Học từ"]
    lit = "".join(text for b in blocks for text, kind in b.pieces if kind)
    assert "Học từ" in lit
    assert "Mở đầu" not in lit


@pytest.mark.parametrize("headings", ["[[", "[1]", '[["a", 0, 1]]', "{}", "[[9, 1, -4]]"])
def test_headings_from_elsewhere_can_be_wrong(ingest, store, views, tmp_path, database, headings):
    (tmp_path / "a.md").write_text("# Một\n\nHai.\n", encoding="utf-8")
    document = added(ingest, tmp_path / "a.md")
    database.execute("UPDATE documents SET headings = ?", (headings,))
    blocks = views.blocks(views.open(source_of(store, document)), 0)
    assert ["".join(text for text, _ in b.pieces) for b in blocks][-1] == "Hai."


def test_articles_are_headings_in_a_law_without_styles(ingest, store, views, tmp_path):
    path = tmp_path / "luật.txt"
    path.write_text(
        "Chương I\nQUY ĐỊNH CHUNG\nĐiều 1. Phạm vi\nLuật này quy định.\nĐiều 2. Đối tượng\nMọi người.\n",
        encoding="utf-8",
    )
    document = added(ingest, path)
    view = views.open(source_of(store, document))
    levels = {b.pieces[0][0]: b.level for b in views.blocks(view, 0)}
    assert levels["Điều 1. Phạm vi"] == levels["Điều 2. Đối tượng"] == 3
    assert levels["Chương I"] == 2
    assert levels["Mọi người."] == 0


def test_a_long_text_is_shown_in_parts_that_join_to_the_whole(ingest, store, views, tmp_path):
    path = tmp_path / "dài.txt"
    path.write_text(
        "".join(f"Đoạn {n} nói về việc thứ {n}.\n" for n in range(2000)), encoding="utf-8"
    )
    document = added(ingest, path)
    last = source_of(store, document, document.passages - 1)
    view = views.open(last)
    assert len(view.sheets) > 3
    assert view.first == len(view.sheets) - 1
    text = store.contents.text(document.id)
    assert "".join(text[s.start : s.end] for s in view.sheets) == text
    assert all(s.end - s.start <= PART for s in view.sheets)
    lines = [
        "".join(text for text, _ in b.pieces)
        for place in range(len(view.sheets))
        for b in views.blocks(view, place)
    ]
    assert lines == text.split("\n")[:-1]


def test_every_line_of_a_word_file_is_shown_once(ingest, store, views, shared_data):
    document = added(ingest, shared_data / "ingest" / "docling" / "unit_test_headers_numbered.docx")
    view = views.open(source_of(store, document))
    blocks = [b for place in range(len(view.sheets)) for b in views.blocks(view, place)]
    assert any(b.level for b in blocks)
    shown = "".join(text for b in blocks for text, _ in b.pieces)
    assert "".join(shown.split()) == "".join(store.contents.text(document.id).split())


@needs_tesseract
def test_a_picture_is_shown_itself_with_its_words_lit_up(
    ingest,
    store,
    views,
    tmp_path,
    scan,  # noqa: F811 - the fixture
):
    scan.save(tmp_path / "ảnh.png", dpi=(150, 150))
    document = added(ingest, tmp_path / "ảnh.png")
    source = source_of(store, document)
    view = views.open(source)
    assert view.drawn
    assert lit_text(views, store, view) == " ".join(source.text.split())
    picture = views.picture(view, 0)
    assert (picture.width, picture.height) == scan.size
