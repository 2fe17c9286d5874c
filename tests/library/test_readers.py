"""Each kind of file, told by its content and read in the child."""

from __future__ import annotations

import codecs
import os
import signal
import sys
import threading
import time
import unicodedata
from pathlib import Path

import psutil
import pytest

from chatbot.errors import Cancelled, EmptyDocument, UnreadableDocument, UnsupportedDocument
from chatbot.library.readers import Reader
from chatbot.library.readers.archive import HAS_ENTITIES, TOO_BIG_INSIDE
from chatbot.library.readers.kinds import NEEDS_PASSWORD
from chatbot.library.readers.pdf import LOOKS_SCANNED

SENTENCE = "Điều kiện xét học bổng: điểm trung bình từ 3,20 trở lên."


def text_of(reading) -> str:
    return "".join(p.text for p in reading.document.pages)


@pytest.fixture
def read(reader: Reader, tmp_path: Path):
    def read(content: bytes, name: str = "tệp.txt"):
        path = tmp_path / "nội dung"
        path.write_bytes(content)
        return reader.read(path, name)

    return read


# --- text -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        SENTENCE.encode(),
        codecs.BOM_UTF8 + SENTENCE.encode(),
        SENTENCE.encode("utf-16"),
        codecs.BOM_UTF16_BE + SENTENCE.encode("utf-16-be"),
        SENTENCE.encode("utf-32"),
        unicodedata.normalize("NFD", SENTENCE).encode(),
        ("Kính gửi quý thầy cô. " + SENTENCE)
        .encode("utf-8")
        .replace("Kính gửi quý thầy cô. ".encode(), b""),
    ],
    ids=["utf-8", "utf-8-bom", "utf-16", "utf-16-be", "utf-32", "nfd", "utf-8-cut"],
)
def test_vietnamese_text_comes_out_in_nfc_whatever_its_encoding(read, content):
    reading = read(content)
    assert text_of(reading) == SENTENCE + "\n"
    assert reading.language == "vi"


def test_windows_1258_is_recognised_by_its_tones(read):
    sentence = "Sinh viên được nghỉ học tạm thời và bảo lưu kết quả đã học."
    # cp1258 keeps vowels with hats as letters and tones behind them.
    parts = [unicodedata.normalize("NFD", c) for c in sentence]
    split = "".join(
        p
        if len(p) < 2
        else unicodedata.normalize("NFC", p.translate(dict.fromkeys(map(ord, TONES))))
        + "".join(t for t in p if t in TONES)
        for p in parts
    )
    assert text_of(read(split.encode("cp1258"))) == sentence + "\n"


TONES = "\u0300\u0301\u0303\u0309\u0323"


def test_markdown_is_shown_as_written_and_its_headings_become_the_path(read):
    source = (
        "# Sổ tay\n\nMở đầu.\n\n```\n# không phải tiêu đề\n```\n\nCài đặt\n-------\n\nChạy lệnh.\n"
    )
    reading = read(source.encode(), "sổ tay.md")
    assert text_of(reading) == source
    assert reading.document.title == "Sổ tay"
    assert [p.path for p in reading.passages] == ["Sổ tay", "Sổ tay › Cài đặt"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyDocument),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), UnreadableDocument),
        (b"GIF89a" + bytes(100), UnsupportedDocument),
        (bytes(range(256)) * 8, UnsupportedDocument),
        (b"PK\x03\x04 cut off", UnreadableDocument),
        (b"%PDF-1.7 cut off", UnreadableDocument),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(read, content, error):
    with pytest.raises(error) as caught:
        read(content, "tệp lạ.pdf")
    assert "tệp lạ.pdf" in caught.value.text("en")


def test_a_file_with_nothing_but_white_space_is_a_warning(read):
    reading = read(b"  \n \n")
    assert reading.document.warning
    assert reading.passages == ()


def test_the_content_decides_not_the_extension(read, make_pdf):
    assert (
        read(make_pdf([[(72, 700, "Really a PDF")]]).read_bytes(), "x.docx").document.media_type
        == "application/pdf"
    )
    assert read(b"<!DOCTYPE html><p>Really HTML", "x.pdf").document.media_type == "text/html"


# --- HTML -----------------------------------------------------------------------------------


def test_html_gives_what_a_reader_sees(read):
    reading = read(
        """<!doctype html><html><head><title>Quy định</title><style>p{color:red}</style></head><body>
        <h1>Học phí</h1><p>Nộp   trong <b>4 tuần</b>.<br>Sau đó bị phạt.</p><script>alert(1)</script>
        <!-- ẩn --><div style="display: none">ẩn</div><ul><li>một<li>hai</ul><ol start=3><li>ba</ol>
        <h2>Mức</h2><table><tr><th>Ngành</th><th>Tiền</th></tr><tr><td>Luật</td><td>500</td></tr></table>sau bảng
        <template>ẩn</template><noscript>ẩn</noscript>&amp; hết</body></html>""".encode()
    )
    assert text_of(reading) == (
        "Học phí\nNộp trong 4 tuần.\nSau đó bị phạt.\n• một\n• hai\n3. ba\nMức\nNgành | Tiền\nLuật | 500\n\n"
        "sau bảng & hết\n"
    )
    assert reading.document.title == "Quy định"
    assert [p.path for p in reading.passages] == ["Học phí", "Học phí › Mức"]


def test_html_in_a_declared_encoding(read):
    page = "<html><head><meta charset='windows-1252'></head><body><p>Café crème</p></body></html>"
    assert text_of(read(page.encode("cp1252"))) == "Café crème\n"


def test_deeply_nested_html_is_read_or_refused_but_never_cut_short(read):
    assert (
        text_of(
            read(
                b"<html><body>"
                + b"<div>" * 1500
                + "sâu".encode()
                + b"</div>" * 1500
                + b"<p>sau</p>"
            )
        )
        == "sâu\nsau\n"
    )
    with pytest.raises(UnreadableDocument):
        read(b"<html><body>" + b"<div>" * 100_000 + "sâu".encode())


# --- Word -----------------------------------------------------------------------------------


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_word_headings_tables_and_automatic_numbers(reader, make_docx):
    numbered = '<w:numPr><w:ilvl w:val="{}"/><w:numId w:val="7"/></w:numPr>'
    path = make_docx(
        paragraph("Quy chế", '<w:pStyle w:val="H1"/>')
        + paragraph("Phạm vi", numbered.format(0))
        + paragraph("Một", numbered.format(1))
        + paragraph("Hai", numbered.format(1))
        + paragraph("Đối tượng", numbered.format(0))
        + paragraph("Ba", numbered.format(1))
        + "<w:p><w:ins><w:r><w:t>Thêm</w:t></w:r></w:ins><w:del><w:r><w:delText>Bớt</w:delText></w:r></w:del></w:p>"
        + "<w:tbl><w:tr><w:tc>"
        + paragraph("A")
        + "</w:tc><w:tc>"
        + paragraph("B")
        + "</w:tc></w:tr></w:tbl>"
        + '<w:p><w:r><w:t>Xem</w:t><w:footnoteReference w:id="2"/></w:r></w:p>',
        styles='<w:style w:styleId="H0"><w:pPr><w:outlineLvl w:val="0"/></w:pPr></w:style>'
        '<w:style w:styleId="H1"><w:basedOn w:val="H0"/></w:style>',
        numbering='<w:abstractNum w:abstractNumId="3">'
        '<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="Điều %1."/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%2)"/></w:lvl>'
        '</w:abstractNum><w:num w:numId="7"><w:abstractNumId w:val="3"/></w:num>',
        footnotes=f'<w:footnote w:id="2">{paragraph("Ghi chú")}</w:footnote>',
    )
    reading = reader.read(path, path.name)
    assert text_of(reading) == (
        "Quy chế\nĐiều 1. Phạm vi\na) Một\nb) Hai\nĐiều 2. Đối tượng\na) Ba\nThêm\nA | B\n\nXem¹\n\n¹ Ghi chú\n"
    )
    assert reading.document.headings[0].level == 1
    assert reading.document.pages[0].number is None


def test_a_word_file_that_unpacks_to_a_bomb_is_refused_before_it_is_parsed(reader, make_docx):
    path = make_docx(paragraph("x") * 200_000)
    assert path.stat().st_size < 200_000
    with pytest.raises(UnreadableDocument) as caught:
        reader.read(path, path.name)
    assert caught.value.values["detail"] == TOO_BIG_INSIDE


def test_a_word_file_with_entities_is_refused_instead_of_losing_text(reader, make_docx, tmp_path):
    import zipfile

    path = tmp_path / "laughs.docx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "word/document.xml",
            '<!DOCTYPE w [<!ENTITY e "bom">]><w:document xmlns:w="x"><w:body><w:p><w:r><w:t>A&e;B</w:t></w:r></w:p>'
            "</w:body></w:document>",
        )
    with pytest.raises(UnreadableDocument) as caught:
        reader.read(path, path.name)
    assert caught.value.values["detail"] == HAS_ENTITIES


def test_an_encrypted_office_file_asks_for_its_password(read):
    content = (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        + bytes(600)
        + "EncryptedPackage".encode("utf-16-le")
        + bytes(600)
    )
    with pytest.raises(UnreadableDocument) as caught:
        read(content, "khoá.docx")
    assert caught.value.values["detail"] == NEEDS_PASSWORD


# --- PDF ------------------------------------------------------------------------------------


def test_a_pdf_gives_paragraphs_by_page_without_running_heads(reader, make_pdf):
    pages = [
        [
            (60, 800, f"Lantern Works, edition {n}"),
            (60, 700, "This paragraph is long enough to reach the right margin and goes"),
            (60, 684, "on in a second line that ends here."),
            (60, 640, f"Another paragraph of page {n}."),
            (290, 30, str(n)),
        ]
        for n in range(1, 5)
    ]
    reading = reader.read(make_pdf(pages), "x.pdf")
    assert [p.number for p in reading.document.pages] == [1, 2, 3, 4]
    assert reading.document.pages[1].text == (
        "This paragraph is long enough to reach the right margin and goes on in a second line that ends here.\n"
        "Another paragraph of page 2.\n"
    )


def test_a_paragraph_goes_on_over_a_page_border(reader, make_pdf):
    pages = [
        [(60, 700, "This paragraph begins here"), (60, 684, "and is long enough to need the next page as"), (60, 668, "it has very many words that do not fit on")],
        [(60, 780, "one page only."), (60, 700, "The end of it all is near, said the fox.")],
    ]  # fmt: skip
    reading = reader.read(make_pdf(pages), "x.pdf")
    assert "do not fit on one page only.\n" in text_of(reading)


def test_words_cut_at_the_end_of_a_line_are_joined(reader, make_pdf):
    pages = [[
        (60, 700, "A long-term plan is what the company needs for the exam-"),
        (60, 684, "ination of its books, and the directors want a long-"),
        (60, 668, "term answer."),
    ]]  # fmt: skip
    assert text_of(reader.read(make_pdf(pages), "x.pdf")) == (
        "A long-term plan is what the company needs for the examination of its books, and the directors want a"
        " long-term answer.\n"
    )


def test_lines_that_repeat_are_kept_when_they_are_all_there_is(reader, make_pdf):
    reading = reader.read(make_pdf([[(60, 810, "Draft")] for _ in range(6)]), "x.pdf")
    assert text_of(reading).count("Draft") == 6


def test_a_pdf_without_text_is_a_warning_not_a_success(reader, make_pdf):
    reading = reader.read(make_pdf([[], []]), "quét.pdf")
    assert reading.document.warning == LOOKS_SCANNED
    assert len(reading.document.pages) == 2


def test_progress_is_told_page_by_page(reader, make_pdf):
    seen: list[tuple[int, int]] = []
    reader.read(
        make_pdf([[(60, 700, "x")]] * 5), "x.pdf", lambda page, pages: seen.append((page, pages))
    )
    assert seen == [(n, 5) for n in range(1, 6)]


# --- the child ------------------------------------------------------------------------------


@pytest.fixture
def long_pdf(make_pdf):
    return make_pdf(
        [[(60, 40 + 14 * n, "words and more words " * 4) for n in range(55)]] * 400, "dài.pdf"
    )


def during_first_page(reader: Reader, path: Path, act) -> None:
    acted = threading.Event()

    def once(page: int, pages: int) -> None:
        if not acted.is_set():
            acted.set()
            act(reader._child.pid)

    reader.read(path, path.name, once)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_crash_of_the_child_costs_the_file_only(reader, long_pdf, read):
    with pytest.raises(UnreadableDocument):
        during_first_page(reader, long_pdf, lambda pid: os.kill(pid, signal.SIGKILL))
    assert text_of(read(b"next")) == "next\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_child_that_stands_still_is_ended(reader, long_pdf, read):
    started = time.monotonic()
    with pytest.raises(UnreadableDocument):
        during_first_page(reader, long_pdf, lambda pid: os.kill(pid, signal.SIGSTOP))
    assert time.monotonic() - started < 15
    assert text_of(read(b"next")) == "next\n"


def test_a_file_that_takes_too_long_is_refused(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"1. a\n" * 2_000_000)
    reader = Reader(seconds=0.5)
    try:
        with pytest.raises(UnreadableDocument):
            reader.read(path, "x.txt")
    finally:
        reader.close()


def test_cancel_ends_the_reading_within_a_second(reader, long_pdf):
    cancelled = threading.Event()
    times: list[float] = []

    def once(page: int, pages: int) -> None:
        if not cancelled.is_set():
            cancelled.set()
            times.append(time.monotonic())

    with pytest.raises(Cancelled):
        reader.read(long_pdf, long_pdf.name, once, cancelled.is_set)
    assert time.monotonic() - times[0] < 1


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
def test_a_file_cannot_take_more_memory_than_a_document_may(reader, make_pdf, tmp_path):
    import zlib

    stream = zlib.compress(
        b"BT /F 12 Tf " + b"(xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx) Tj " * 5_000_000 + b"ET"
    )
    content = (
        make_pdf([[]])
        .read_bytes()
        .replace(
            b"<</Length 0>>stream\n\nendstream",
            b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(stream), stream),
        )
    )
    path = tmp_path / "bom.pdf"
    path.write_bytes(content)
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            try:
                peak[0] = max(peak[0], psutil.Process(reader._child.pid).memory_info().rss)
            except (psutil.Error, TypeError):
                continue

    threading.Thread(target=watch, daemon=True).start()
    with pytest.raises(UnreadableDocument):
        reader.read(path, path.name)
    stop.set()
    assert 0 < peak[0] < 1_500_000_000
