"""Where words stand: their boxes are cut from the page's own text, and their ink lies inside them."""

from __future__ import annotations

import string
import zlib
from itertools import pairwise

import numpy as np
import pypdfium2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.anchors import read_back
from chatbot.library.anchors import STEPS, Box, Rectangle, pack, rectangles, unpack
from chatbot.library.readers.composing import Composer
from chatbot.library.readers.layout import Line, Page, compose
from chatbot.library.readers.pdf import read_pdf
from chatbot.types import PageText
from tests.library.conftest import pdf_bytes
from tests.library.test_readers_ocr import needs_tesseract
from tests.library.test_readers_ocr import page as scan  # noqa: F401 - a fixture


def read(path):
    return read_pdf(path, path.name, lambda *_: None).pages


def words_and_places(page: PageText) -> list[tuple[str, Rectangle]]:
    return [(page.text[b.start : b.end], b.place) for b in unpack(page.anchors)]


def check_boxes(page: PageText) -> None:
    """Every letter of the page is in exactly one box, the boxes in the text's order, each on the page."""
    boxes = unpack(page.anchors)
    assert "".join(page.text[b.start : b.end] for b in boxes) == "".join(page.text.split())
    for before, after in pairwise(boxes):
        assert before.end <= after.start
    for box in boxes:
        assert box.start < box.end
        assert not any(c.isspace() for c in page.text[box.start : box.end])
        left, top, right, bottom = box.place
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1


parts = st.floats(0, 1, width=32)
spans = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70_000)), max_size=30)


@given(data=st.data(), gaps=spans)
def test_what_is_packed_comes_back_to_within_a_step(data, gaps):
    starts, ends, at = [], [], 0
    for gap, length in gaps:
        starts.append(at + gap)
        ends.append(at + gap + length)
        at = ends[-1]
    places = [
        Rectangle(*(a[0], b[0], a[1], b[1]))
        for a, b in (
            (sorted(data.draw(st.tuples(parts, parts))), sorted(data.draw(st.tuples(parts, parts))))
            for _ in gaps
        )
    ]
    boxes = unpack(pack(starts, ends, list(zip(*places, strict=True)) or [(), (), (), ()]))
    assert [(b.start, b.end) for b in boxes] == list(zip(starts, ends, strict=True))
    for box, place in zip(boxes, places, strict=True):
        assert np.allclose(box.place, place, atol=1 / STEPS)


@pytest.mark.parametrize(
    "anchors",
    [b"x", b"h", b"hgarbage", b"h" + zlib.compress(b"odd"), b"i" + zlib.compress(b"\0" * 100_000_000)],
    ids=["unknown", "empty", "no zlib", "half a number", "a bomb"],
)  # fmt: skip
def test_damaged_anchors_light_nothing_up(anchors):
    assert unpack(anchors) == []


word = st.text(string.ascii_letters + string.digits + ".,;-", min_size=1, max_size=12)


@settings(max_examples=25)
@given(lines=st.lists(st.lists(word, min_size=1, max_size=8).map(" ".join), max_size=12))
def test_boxes_are_cut_from_the_text_of_any_page(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.pdf"
    path.write_bytes(pdf_bytes([[(60, 760 - 20 * n, line) for n, line in enumerate(lines)]]))
    (page,) = read(path)
    check_boxes(page)


letters = st.text("ab\u00ad\x02\ufffe-\u200bế é\u0301ﬁĐ\u3000\x07", min_size=1, max_size=14)


@given(
    lines=st.lists(
        letters.filter(lambda t: any(c.isalnum() for c in t)).map(str.strip), min_size=1, max_size=8
    )
)
@example(lines=["a\x02\x02", "a"])
@example(lines=["a \x02\x02", "a"])
def test_boxes_follow_every_repair_of_the_text(lines):
    """Hyphens, ligatures, invisible signs, decomposed letters: a box holds what was drawn in its place."""
    drawn = [Line(t, 50, 500, 700 - 15 * n, 712 - 15 * n) for n, t in enumerate(lines)]
    composer = Composer()
    compose([Page(600, 800, drawn, has_pictures=False)], composer)
    (page,) = composer.document("application/pdf").pages
    boxes = unpack(page.anchors)
    for box in boxes:
        assert 0 <= box.start <= box.end <= len(page.text)
        assert not any(c.isspace() for c in page.text[box.start : box.end])
    if boxes and not any(c in t for t in lines for c in "\u200b\x07"):
        check_boxes(page)


def test_a_word_cut_at_the_end_of_a_line_stands_in_two_places(make_pdf):
    text = "The committee shall meet in public unless the regu-"
    path = make_pdf(
        [[(60, 700, text), (60, 686, "lations of the school say that it must not do so at")]]
    )
    (page,) = read(path)
    assert "regulations" in page.text
    found = words_and_places(page)
    at = [w for w, _ in found].index("regu")
    (_, before), (after_word, after) = found[at : at + 2]
    assert after_word == "lations"
    assert before.top < after.top
    assert after.left < before.left
    start = page.text.index("regulations")
    assert len(rectangles(unpack(page.anchors), start, start + len("regulations"))) == 2


def test_words_of_one_line_are_one_rectangle_and_columns_are_not():
    def box(start: int, left: float, top: float) -> Box:
        return Box(start, start + 4, Rectangle(left, top, left + 0.1, top + 0.02))

    line = [box(0, 0.1, 0.5), box(5, 0.22, 0.5), box(10, 0.6, 0.5), box(15, 0.1, 0.53)]
    assert rectangles(line, 0, 20) == [
        Rectangle(0.1, 0.5, 0.22 + 0.1, 0.52),
        Rectangle(0.6, 0.5, 0.7, 0.52),
        Rectangle(0.1, 0.53, 0.2, 0.55),
    ]
    assert rectangles(line, 5, 9) == [line[1].place]
    assert rectangles(line, 4, 5) == []


def ink(page: object, width: int = 800) -> np.ndarray:
    bitmap = page.render(scale=width / page.get_width(), grayscale=True)
    pixels = bitmap.to_numpy()
    return pixels.reshape(pixels.shape[:2]) < 128


def check_ink(drawn: np.ndarray, places: list[Rectangle]) -> None:
    """All ink is in the boxes, and no box is without ink."""
    height, width = drawn.shape
    outside = drawn.copy()
    for left, top, right, bottom in places:
        rows = slice(max(int(top * height) - 2, 0), int(bottom * height) + 3)
        columns = slice(max(int(left * width) - 2, 0), int(right * width) + 3)
        assert drawn[rows, columns].any()
        outside[rows, columns] = False
    assert not outside.any()


SHOWN = {
    "as it is": lambda page: None,
    "turned by 90": lambda page: page.set_rotation(90),
    "turned by 180": lambda page: page.set_rotation(180),
    "turned by 270": lambda page: page.set_rotation(270),
    "cut out": lambda page: page.set_cropbox(40, 300, 500, 800),
    "cut out and turned": lambda page: (page.set_cropbox(40, 300, 500, 800), page.set_rotation(90)),
    "with another origin": lambda page: page.set_mediabox(-100, -50, 695, 850),
}


@pytest.mark.parametrize("how", SHOWN)
def test_the_ink_of_words_is_in_their_boxes_however_the_page_is_shown(tmp_path, how):
    lines = ["Sinh vien duoc xet hoc bong khi du dieu kien", "Second line, with  a  wide gap", "x"]
    raw = pdf_bytes([[(70, 700 - 40 * n, line) for n, line in enumerate(lines)]])
    with pypdfium2.PdfDocument(raw) as document:
        SHOWN[how](document[0])
        document.save(tmp_path / "trang.pdf")
    (page,) = read(tmp_path / "trang.pdf")
    check_boxes(page)
    assert {"Sinh", "line,", "x"} <= set(page.text.split())
    with pypdfium2.PdfDocument(tmp_path / "trang.pdf") as document:
        check_ink(ink(document[0]), [b.place for b in unpack(page.anchors)])


@needs_tesseract
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_words_of_a_scan_stand_where_their_ink_is_also_when_it_lies_on_its_side(
    tmp_path,
    scan,  # noqa: F811 - the fixture
    quarters,
):
    picture = Image.new("L", (1240, 1240), 255)
    for row in range(2):  # a page with more lines is turned more surely
        picture.paste(scan, (0, 600 * row))
    picture = picture.rotate(90 * quarters, expand=True)
    picture.save(tmp_path / "quét.pdf", "PDF", resolution=150)
    (page,) = read(tmp_path / "quét.pdf")
    check_boxes(page)
    assert "học bổng" in page.text
    boxes = unpack(page.anchors)
    check_ink(np.asarray(picture) < 128, [b.place for b in boxes])


@pytest.mark.parametrize(
    "name",
    [
        "pdfplumber/scotus-transcript-p1.pdf",
        "pdfplumber/nics-background-checks-2015-11-rotated.pdf",
        "pdfjs/issue5599.pdf",
        "pypdf_samples/habibi-rotated.pdf",
        "pdf_cabinet_of_horrors/webCapture.pdf",
        "unstructured/fake-memo-with-duplicate-page.pdf",
        "unstructured/negative-coords.pdf",
    ],
)
def test_boxes_of_odd_files(shared_data, name):
    for page in read(shared_data / "ingest" / name):
        check_boxes(page)


def test_passages_in_two_columns_light_up_their_own_column(shared_data):
    file = shared_data / "ingest" / "unstructured" / "multi-column-2p.pdf"
    document = read_pdf(file, file.name, lambda *_: None)
    for page in document.pages:
        check_boxes(page)
        places = rectangles(unpack(page.anchors), 0, len(page.text))
        assert sum(p.right - p.left > 0.6 for p in places) < 0.2 * len(places)
    figures = read_back(file, document)
    assert not any(missing for _, _, missing in figures)
    assert np.median([found for found, _, _ in figures]) >= 0.9
    assert np.median([own for _, own, _ in figures]) >= 0.9


@pytest.mark.parametrize(
    "name", ["thong-tu-so-06-2024-tt-bldtbxh-42452", "thong-tu-so-03-2024-tt-bldtbxh-41827"]
)
def test_every_passage_of_an_official_pdf_is_read_back_from_its_place(shared_data, name):
    """The second has turned pages. benchmarks/anchors.py does this with all 60."""
    file = shared_data / "phapluat-vi" / f"{name}.pdf"
    document = read_pdf(file, file.name, lambda *_: None)
    for page in document.pages:
        check_boxes(page)
    figures = read_back(file, document)
    assert not any(missing for _, _, missing in figures)
    assert np.median([found for found, _, _ in figures]) >= 0.99
    assert np.median([own for _, own, _ in figures]) >= 0.99
    assert min(found for found, _, _ in figures) > 0.75
