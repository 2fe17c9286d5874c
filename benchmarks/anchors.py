"""Whether what is lit up on a page is the passage: every passage of official PDFs, read back from its place.

    python -m benchmarks.anchors [FOLDER]          FOLDER: ../shared/data/phapluat-vi

PDFium itself reads back what stands inside the rectangles of a passage on each of its pages. Printed: passages
without a rectangle on the page they begin on; the share of a passage's words that come back, and of those that
come back the share that are its own; what the anchors weigh, the processor's time for a page, and how long a page takes to be drawn.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chatbot.library.anchors import Rectangle, rectangles, unpack
from chatbot.library.chunking import cut, document_text
from chatbot.library.readers.cleaning import clean_line
from chatbot.library.readers.pdf import read_pdf
from chatbot.library.renderer import Renderer
from chatbot.settings import PROJECT

GRAIN = 1_000_000
INSET = 0.15
"""Of a line's height: letters' cells reach a little into the lines above and below."""


def main(folder: Path) -> None:
    found: list[float] = []
    own: list[float] = []
    missing = pages = 0
    weight = letters = 0
    seconds = 0.0
    files = sorted(folder.glob("*.pdf"))
    for file in files:
        started = time.process_time()
        document = read_pdf(file, file.name, lambda *_: None)
        seconds += time.process_time() - started
        pages += len(document.pages)
        weight += sum(len(page.anchors or b"") for page in document.pages)
        letters += len(document_text(document.pages).encode())
        figures = read_back(file, document)
        found += [figure[0] for figure in figures]
        own += [figure[1] for figure in figures]
        missing += sum(figure[2] for figure in figures)
    print(
        f"{len(files)} files, {pages} pages, {len(found)} passages; {missing} without a rectangle on their page"
    )
    for name, values in (("words that come back", found), ("of them its own", own)):
        values.sort()
        few = sum(v < 0.9 for v in values) / len(values)
        print(
            f"{name}: median {statistics.median(values):.4f}, mean {statistics.fmean(values):.4f},"
            f" 5 % have at most {values[len(values) // 20]:.3f}, below 0.9: {few:.2%}"
        )
    print(
        f"anchors {weight / pages:.0f} bytes a page ({weight / letters:.0%} of the text);"
        f" reading {1000 * seconds / pages:.2f} ms a page of processor time"
    )
    renderer = Renderer()
    drawn: list[tuple[float, int]] = []
    for file in files:
        begun = time.perf_counter()
        picture = renderer.draw(file, file.name, 0)
        drawn.append((time.perf_counter() - begun, len(picture.content)))
    renderer.close()
    times = sorted(1000 * taken for taken, _ in drawn[1:])
    print(
        f"drawing a page: {times[len(times) // 2]:.0f} ms median, {times[int(0.95 * len(times))]:.0f} ms 95 %,"
        f" the first with its process {1000 * drawn[0][0]:.0f} ms;"
        f" {statistics.median(size for _, size in drawn) / 1000:.0f} kB median"
    )


def read_back(file: Path, document: Any) -> list[tuple[float, float, bool]]:
    """Of each passage: the share of its words found, of the words found that are its own, whether it has no place."""
    import pypdfium2

    starts = [0]
    for page in document.pages:
        starts.append(starts[-1] + len(page.text))
    boxes = [unpack(page.anchors or b"") for page in document.pages]
    figures = []
    with pypdfium2.PdfDocument(file) as pdf:
        shown = [pdf[n] for n in range(len(pdf))]
        texts = [page.get_textpage() for page in shown]
        for draft in cut(document.pages, document.headings):
            ink = draft.start + len(draft.text) - len(draft.text.lstrip())
            first = max(n for n, start in enumerate(starts[:-1]) if start <= ink)
            read: Counter[str] = Counter()
            placed = False
            for n, page in enumerate(document.pages):
                start, end = draft.start - starts[n], draft.end - starts[n]
                if end <= 0 or start >= len(page.text):
                    continue
                places = rectangles(boxes[n], start, end)
                placed = placed or (n == first and bool(places))
                for place in places:
                    read.update(clean_line(inside(shown[n], texts[n], place)).split())
            wanted = Counter(draft.text.split())
            common = (wanted & read).total()
            figures.append((common / wanted.total(), common / max(read.total(), 1), not placed))
    return figures


def inside(page: Any, text: Any, place: Rectangle) -> str:
    """What PDFium finds in that part of the page; it turns the part into its own units itself."""
    inset = INSET * (place.bottom - place.top)
    x1, y1 = in_page_units(page, place.left, place.top + inset)
    x2, y2 = in_page_units(page, place.right, place.bottom - inset)
    found: str = text.get_text_bounded(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    return found


def in_page_units(page: Any, across: float, down: float) -> tuple[float, float]:
    from pypdfium2 import raw

    x, y = ctypes.c_double(), ctypes.c_double()
    point = (round(across * GRAIN), round(down * GRAIN))
    raw.FPDF_DeviceToPage(page, 0, 0, GRAIN, GRAIN, 0, *point, ctypes.byref(x), ctypes.byref(y))
    return x.value, y.value


if __name__ == "__main__":
    main(
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else PROJECT.parent / "shared" / "data" / "phapluat-vi"
    )
