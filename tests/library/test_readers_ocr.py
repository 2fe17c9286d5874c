"""Scans and pictures: their text where Tesseract is installed, a clear word where it is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from chatbot.errors import UnreadableDocument
from chatbot.library.readers import Reader, ocr
from chatbot.library.readers.archive import TOO_BIG_INSIDE
from chatbot.library.readers.pdf import LOOKS_SCANNED
from chatbot.library.readers.picture import NO_TEXT_SEEN

FONTS = (
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "DejaVuSans.ttf",
    "arial.ttf",
    "Arial.ttf",
)
LINES = [
    "Điều 5. Học bổng khuyến khích",
    "Sinh viên được xét học bổng khi điểm trung bình",
    "từ 3,20 trở lên.",
]


def languages() -> str:
    program = shutil.which("tesseract")
    listed = [program, "--list-langs"] if program else []
    return (
        subprocess.run(listed, capture_output=True, text=True, check=False).stdout
        if program
        else ""
    )


needs_tesseract = pytest.mark.skipif(
    not {"vie", "eng"} <= set(languages().split()),
    reason="Tesseract with Vietnamese is not installed",
)


@pytest.fixture(scope="module")
def page() -> Image.Image:
    """A page of 150 dots per inch with three lines on it."""
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, 32)
            break
        except OSError:
            continue
    else:
        pytest.skip("no font with Vietnamese letters is installed")
    image = Image.new("L", (1240, 500), 255)
    for number, line in enumerate(LINES):
        ImageDraw.Draw(image).text((120, 120 + 60 * number), line, 0, font)
    return image


def text_of(reading) -> str:
    return "".join(p.text for p in reading.document.pages)


EXPECTED = "Điều 5. Học bổng khuyến khích\nSinh viên được xét học bổng khi điểm trung bình từ 3,20 trở lên.\n"


@needs_tesseract
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PDF"])
def test_a_picture_of_a_page_gives_its_text_and_says_so(reader, page, tmp_path, kind):
    path = tmp_path / "quét"
    page.save(path, kind, dpi=(150, 150), resolution=150)
    reading = reader.read(path, "quét")
    assert text_of(reading) == EXPECTED
    assert reading.document.warning == ocr.RECOGNISED
    assert reading.document.pages[0].number == 1
    assert reading.language == "vi"


@needs_tesseract
def test_every_page_of_a_tiff_is_a_page(reader, page, tmp_path):
    path = tmp_path / "fax.tiff"
    blank = Image.new("L", page.size, 255)
    page.save(path, "TIFF", save_all=True, append_images=[blank, page], dpi=(150, 150))
    seen: list[tuple[int, int]] = []
    reading = reader.read(path, path.name, lambda n, of: seen.append((n, of)))
    assert [p.text for p in reading.document.pages] == [EXPECTED, "", EXPECTED]
    assert seen == [(1, 3), (2, 3), (3, 3)]


@needs_tesseract
def test_a_page_that_lies_on_its_side_is_turned(reader, tmp_path, page):
    tall = Image.new("L", (1240, 1240), 255)
    for place in range(3):
        tall.paste(page.crop((0, 100, 1240, 320)), (0, 100 + 300 * place))
    path = tmp_path / "nằm.png"
    tall.rotate(90, expand=True).save(path, dpi=(150, 150))
    assert text_of(reader.read(path, path.name)).count("học bổng khi điểm trung bình") == 3


@needs_tesseract
def test_a_scan_with_a_stamp_of_real_text_is_still_read(reader, page, tmp_path, make_pdf):
    import pypdfium2

    scan, path = tmp_path / "scan.pdf", tmp_path / "ký.pdf"
    page.save(scan, "PDF", resolution=150)
    stamp = make_pdf([[(60, 5, "Signed by CA 1")]])
    target = pypdfium2.PdfDocument.new()
    with pypdfium2.PdfDocument(scan) as picture, pypdfium2.PdfDocument(stamp) as signature:
        new = target.new_page(*picture[0].get_size())
        for source in (picture, signature):
            new.insert_obj(source.page_as_xobject(0, target).as_pageobject())
        new.gen_content()
        target.save(path)
    assert "Sinh viên được xét học bổng" in text_of(reader.read(path, path.name))


@needs_tesseract
def test_a_picture_without_words_is_a_warning(reader, tmp_path):
    path = tmp_path / "trời.png"
    Image.new("RGB", (400, 300), "skyblue").save(path)
    assert reader.read(path, path.name).document.warning == NO_TEXT_SEEN


def test_a_picture_too_big_to_unpack_is_refused(reader, tmp_path):
    path = tmp_path / "bom.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(UnreadableDocument) as caught:
        reader.read(path, path.name)
    assert caught.value.values["detail"] == TOO_BIG_INSIDE


def test_without_tesseract_the_warning_says_how_to_get_it(page, tmp_path, monkeypatch):
    if any(Path(folder, "tesseract").exists() for folder in ocr._USUAL_FOLDERS):
        pytest.skip("Tesseract lies where Hearth always finds it")
    monkeypatch.setenv("PATH", str(tmp_path))
    reader = Reader()
    try:
        page.save(tmp_path / "a.png")
        page.save(tmp_path / "a.pdf", "PDF")
        picture = reader.read(tmp_path / "a.png", "a.png").document
        scan = reader.read(tmp_path / "a.pdf", "a.pdf").document
    finally:
        reader.close()
    assert picture.warning == ocr.NOT_INSTALLED
    assert scan.warning == f"{LOOKS_SCANNED}\n{ocr.NOT_INSTALLED}"


def test_a_file_whose_time_is_up_keeps_what_was_read(monkeypatch):
    import numpy as np

    recogniser = ocr.Recogniser()
    monkeypatch.setattr(recogniser, "_left", 0.0)
    monkeypatch.setattr(ocr, "_program", lambda: "tesseract")
    assert recogniser.page(ocr.Picture(np.zeros((9, 9), np.uint8), 300)) is None
    assert recogniser.notes == ocr.TOOK_TOO_LONG
