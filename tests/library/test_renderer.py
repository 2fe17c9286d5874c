"""Pages drawn from files that nobody vouches for: a picture or a named error, and the app lives on."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pypdfium2
import pytest
from PIL import Image

from chatbot.errors import ChildHung, UndrawablePage
from chatbot.library import renderer as rendering
from chatbot.library.readers.kinds import DAMAGED, NEEDS_PASSWORD
from chatbot.library.renderer import CRASHED, TOOK_TOO_LONG, PagePicture, Renderer
from chatbot.library.renderer_worker import NEEDS_TOO_MUCH_MEMORY

DETAILS = (DAMAGED, NEEDS_PASSWORD, CRASHED, TOOK_TOO_LONG, NEEDS_TOO_MUCH_MEMORY)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.close()


def image(picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.content))


def test_a_page_is_drawn_on_white_paper_at_its_own_shape(renderer, make_pdf):
    path = make_pdf([[(60, 760, "one")], [(60, 760, "two")]])
    picture = renderer.draw(path, "tệp.pdf", 1)
    drawn = image(picture).convert("L")
    assert drawn.size == (picture.width, picture.height) == (1400, math.ceil(1400 * 842 / 595))
    assert drawn.getpixel((5, 5)) == 255
    assert drawn.getextrema()[0] < 60


def test_a_turned_page_is_shown_turned(renderer, tmp_path, make_pdf):
    with pypdfium2.PdfDocument(make_pdf([[(60, 760, "one")]])) as document:
        document[0].set_rotation(90)
        document.save(tmp_path / "turned.pdf")
    picture = renderer.draw(tmp_path / "turned.pdf", "turned.pdf", 0)
    assert picture.width > picture.height


def test_a_picture_is_shown_upright_on_white_and_no_larger_than_needed(renderer, tmp_path):
    frame = Image.new("RGBA", (3000, 1000), (0, 0, 0, 0))
    exif = frame.getexif()
    exif[0x0112] = 6  # the camera was held upright
    frame.save(tmp_path / "ảnh.png", exif=exif)
    drawn = image(renderer.draw(tmp_path / "ảnh.png", "ảnh.png", 0))
    assert drawn.width < drawn.height <= 5800
    assert drawn.getpixel((5, 5)) == (255, 255, 255)


def test_the_last_pages_are_kept_and_only_so_many(make_pdf, monkeypatch):
    path = make_pdf([[(60, 760, "one")], [(60, 760, "two")]])
    renderer = Renderer()
    try:
        first = renderer.draw(path, "tệp.pdf", 0)
        assert renderer.draw(path, "tệp.pdf", 0) is first
        monkeypatch.setattr(rendering, "CACHE_BYTES", len(first.content) + 10)
        renderer.draw(path, "tệp.pdf", 1)
        assert renderer.draw(path, "tệp.pdf", 0) is not first
    finally:
        renderer.close()


def test_the_child_rests_when_nobody_looks(make_pdf):
    renderer = Renderer(idle_seconds=0.1)
    try:
        path = make_pdf([[(60, 760, "one")], []])
        renderer.draw(path, "tệp.pdf", 0)
        deadline = time.monotonic() + 20
        while renderer._child.pid and time.monotonic() < deadline:
            time.sleep(0.05)
        assert renderer._child.pid is None
        assert renderer.draw(path, "tệp.pdf", 1).width == 1400
    finally:
        renderer.close()


def test_a_child_that_is_killed_costs_one_page(renderer, tmp_path, make_pdf):
    path = make_pdf([[(60, 760, "one")]], name="another.pdf")
    renderer.draw(path, "a.pdf", 0)
    psutil.Process(renderer._child.pid).kill()
    deadline = time.monotonic() + 10
    while renderer._child.pid and time.monotonic() < deadline:
        time.sleep(0.02)
    picture = renderer.draw(make_pdf([[(60, 760, "two")]], name="third.pdf"), "b.pdf", 0)
    assert picture.width == 1400


@pytest.mark.parametrize(
    ("said", "expected"),
    [(ChildHung(name="renderer"), TOOK_TOO_LONG), (rendering.ChildDied("SIGKILL"), CRASHED)],
)
def test_what_happens_to_the_child_is_told_of_the_page(monkeypatch, said, expected):
    renderer = Renderer()
    monkeypatch.setattr(renderer._child, "call", lambda *_, **__: (_ for _ in ()).throw(said))
    with pytest.raises(UndrawablePage) as error:
        renderer.draw(Path("x.pdf"), "x.pdf", 4)
    assert error.value.values == {"detail": expected, "name": "x.pdf", "page": 5}


def test_a_standstill_ends_in_time(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with a name here")
    os.mkfifo(tmp_path / "never")  # opening it waits for a writer who never comes
    renderer = Renderer(seconds=3)
    try:
        with pytest.raises(UndrawablePage) as error:
            renderer.draw(tmp_path / "never", "never.pdf", 0)
        assert error.value.values["detail"] == TOOK_TOO_LONG
    finally:
        renderer.close()


def test_a_page_that_is_not_there(renderer, make_pdf):
    path = make_pdf([[(60, 760, "one")]])
    with pytest.raises(UndrawablePage, match="Page 10 of"):
        renderer.draw(path, "tệp.pdf", 9)


def test_an_encrypted_file_says_so_in_both_languages(renderer, shared_data):
    path = shared_data / "ingest" / "pdfplumber" / "password-example.pdf"
    with pytest.raises(UndrawablePage) as error:
        renderer.draw(path, "mật.pdf", 0)
    assert error.value.values["detail"] == NEEDS_PASSWORD
    assert "mật khẩu" in error.value.text("vi")
    assert "password" in error.value.text("en")


def test_hostile_and_broken_files_are_pictures_or_named_errors(renderer, shared_data):
    """Every PDF and picture of the set: nothing but a page or UndrawablePage comes out, and soon."""
    folder = shared_data / "ingest"
    files = [f for kind in ("pdf", "png", "jpg", "tif*") for f in sorted(folder.rglob(f"*.{kind}"))]
    drawn = 0
    for path in files:
        started = time.monotonic()
        outcome = drawn_or_refused(renderer, path)
        assert time.monotonic() - started < 30
        if isinstance(outcome, UndrawablePage):
            assert outcome.values["name"] == path.name
            assert outcome.values["detail"] in DETAILS
        else:
            drawn += 1
            assert outcome.content[:3] == b"\xff\xd8\xff"
            assert outcome.width * outcome.height <= 8_100_000
    assert drawn > 0.7 * len(files)


def drawn_or_refused(renderer: Renderer, path: Path) -> PagePicture | UndrawablePage:
    try:
        return renderer.draw(path, path.name, 0)
    except UndrawablePage as error:
        return error
