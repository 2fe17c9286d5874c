"""Odd, broken, encrypted and hostile files of other projects: each gives text, a warning, or a named error.

A subset of the shared files runs always; HEARTH_FULL=1 reads all 236.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from chatbot.errors import DocumentError
from chatbot.library.readers import Reader

pytestmark = pytest.mark.faults

FULL = bool(os.environ.get("HEARTH_FULL"))


@pytest.fixture(scope="module")
def reader():
    reader = Reader()
    yield reader
    reader.close()


def outcome(reader: Reader, path: Path, name: str) -> str:
    """'text', 'warning' or the error's code; fails for what may never happen."""
    signs = [time.monotonic()]  # a scan of many pages takes long, but tells of every page
    reading, code = None, ""
    try:
        reading = reader.read(path, name, lambda _page, _pages: signs.append(time.monotonic()))
    except DocumentError as error:
        code = error.code if name in error.text("en") else f"an error without the name: {error}"
    signs.append(time.monotonic())
    assert max(after - before for before, after in pairwise(signs)) < 70
    if reading is None:
        return code
    text = "".join(p.text for p in reading.document.pages)
    assert "".join(p.text for p in reading.passages) == (text if text.strip() else "")
    if not text.strip():
        assert reading.document.warning, f"{name} came back empty and silent"
    return "warning" if reading.document.warning else "text"


@pytest.mark.timeout(1800 if FULL else 600)  # with Tesseract, scans are really read
def test_files_of_other_projects(shared_data, reader):
    folder = shared_data / "ingest"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    if not FULL:
        rows = [r for r in rows if r["kind"] in ("hostile", "broken", "encrypted")] + rows[::4]
    outcomes = {
        row["file"]: outcome(reader, folder / row["file"], Path(row["file"]).name) for row in rows
    }
    read = [file for file, result in outcomes.items() if result == "text"]
    assert len(outcomes) >= 100
    assert len(read) >= 40
    assert outcomes["pdf_cabinet_of_horrors/encryption_openpassword.pdf"] == "unreadable_document"
    assert outcomes["poi_docx/ExternalEntityInText.docx"] == "unreadable_document"


def test_a_reader_survives_every_truncation_of_a_pdf(reader, shared_data, tmp_path):
    content = (
        shared_data / "phapluat-vi" / "nghi-quyet-so-78-2025-ubtvqh15-45003.pdf"
    ).read_bytes()
    path = tmp_path / "cắt.pdf"
    for part in range(1, 20):
        path.write_bytes(content[: len(content) * part // 20])
        assert outcome(reader, path, "cắt.pdf") in ("text", "warning", "unreadable_document")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gaps.txt", b"x" + b" " * 5_000_000 + b"y", "text"),
        ("dots.txt", "Điều 1. ".encode() + b"." * 3_000_000 + b"y\n", "text"),
        ("one line.txt", b"a" * 10_000_000, "text"),
        ("brackets.md", b"[" * 300_000 + b"\n" + b"*" * 300_000 + b"\n" + b"# " * 300_000, "text"),
        ("numbers.txt", b"1. a. b. c. " * 50_000, "text"),
        ("nul.txt", b"text\0text" * 1000, "unsupported_document"),
        ("too large.html", b"<html>" + b"x" * 20_000_001, "unreadable_document"),
        ("surrogates.txt", b"\xff\xfe" + b"\x00\xd8" * 1000, "text"),
        ("mojibake.bin", bytes(range(128, 256)) * 100, "unreadable_document"),
        ("entities.html", b"<html><body>" + b"&amp;&#0;&#xD800;&bogus;" * 10_000, "text"),
    ],
)
def test_text_made_to_hang_or_mislead(reader, tmp_path, name, content, expected):
    path = tmp_path / "tệp"
    path.write_bytes(content)
    assert outcome(reader, path, name) == expected


def test_a_pdf_that_inflates_five_hundred_times(reader, tmp_path):
    stream = zlib.compress(b"BT /F 12 Tf 60 700 Td (word) Tj ET " + b" " * 300_000_000, 9)
    head = b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Count 1/Kids[3 0 R]>>\nendobj\n"
    page = b"3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>\nendobj\n"
    body = b"4 0 obj\n<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream\nendobj\n" % (
        len(stream),
        stream,
    )
    font = (
        b"5 0 obj\n<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>\nendobj\ntrailer<</Root 1 0 R>>"
    )
    path = tmp_path / "bom.pdf"
    path.write_bytes(head + page + body + font)
    assert outcome(reader, path, "bom.pdf") in ("text", "unreadable_document")
