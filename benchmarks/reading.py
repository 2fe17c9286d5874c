"""How much of official PDFs arrives as text, and whether every article is found on its page.

    python -m benchmarks.reading [FOLDER] [--worst N]      FOLDER: ../shared/data/phapluat-vi

Per file and in all: the similarity of our text to the supplied one (normalised Indel: 1 minus the characters
to delete and insert, over all characters; NFC, white space folded, running heads left out of both: lines at
the edge of a page that, but for the page's number, stand on three or more), characters that are missing and that are too many (white space left out; needs no
alignment), and the articles of the supplied text found under their number on the page whose own text has them.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pypdfium2
from rapidfuzz.distance import Indel

from chatbot.library.legal import ARTICLE, QUOTED, legal_marks
from chatbot.library.readers import Reader
from chatbot.settings import PROJECT
from chatbot.text import nfc
from chatbot.types import PageText

HEADING = re.compile(r"^\s*[“\"]?(?:Điều|ĐIỀU)\s+(\d+[a-zđ]?)\s*\.", re.MULTILINE)
REPEATED = 3
"""A line on so many pages is a running head."""
EDGE = 3
"""So many lines at the top and bottom of a page may be running heads."""


def main(folder: Path, worst: int) -> None:
    rows = [
        json.loads(line)
        for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    reader = Reader()
    results: list[tuple[float, float, float, int, int, str]] = []
    pages, seconds = 0, 0.0
    for row in rows:
        started = time.perf_counter()
        read = reader.read(folder / row["file"], row["file"]).document.pages
        seconds += time.perf_counter() - started
        pages += len(read)
        drawn = pages_of(folder / row["file"])
        running = repeated(drawn)
        ours = without(running, "".join(p.text for p in read))
        theirs = without(running, nfc((folder / row["text_file"]).read_text(encoding="utf-8")))
        similarity = Indel.normalized_similarity(folded(ours), folded(theirs))
        letters = [Counter(c for c in text if not c.isspace()) for text in (ours, theirs)]
        lost = (letters[1] - letters[0]).total() / letters[1].total()
        extra = (letters[0] - letters[1]).total() / letters[1].total()
        wanted = wanted_articles(theirs, drawn)
        found = (wanted & found_articles(read)).total()
        results.append((similarity, lost, extra, found, wanted.total(), row["file"]))
        print(
            f"{similarity:.4f} similar, {lost:.4f} lost, {extra:.4f} extra,"
            f" {found} of {wanted.total()} articles  {row['file']}"
        )
    reader.close()
    summary(results, pages, seconds)
    for result in sorted(results)[:worst]:
        print(result[0], result[-1])


def summary(
    results: Sequence[tuple[float, float, float, int, int, str]], pages: int, seconds: float
) -> None:
    similar = [r[0] for r in results]
    found, wanted = sum(r[3] for r in results), sum(r[4] for r in results)
    print(
        f"{len(results)} files, {pages} pages in {seconds:.1f} s; similarity: median"
        f" {statistics.median(similar):.4f}, {sum(s >= 0.95 for s in similar)} of {len(results)} at least .95,"
        f" least {min(similar):.4f}; characters lost: median {statistics.median(r[1] for r in results):.4f},"
        f" most {max(r[1] for r in results):.4f}; articles on their page {found} of {wanted}"
    )


def pages_of(file: Path) -> list[str]:
    """The text that the PDF itself holds, page by page."""
    with pypdfium2.PdfDocument(file) as document:
        return [nfc(page.get_textpage().get_text_range()) for page in document]


def repeated(pages: Sequence[str]) -> frozenset[str]:
    """The lines that stand at the edge of several pages, without the pages' numbers."""
    counts: Counter[str] = Counter()
    for page in pages:
        lines = [line for line in page.splitlines() if line.strip()]
        counts.update({unnumbered(line) for line in (*lines[:EDGE], *lines[-EDGE:])})
    return frozenset(line for line, count in counts.items() if line and count >= REPEATED)


def without(lines: frozenset[str], text: str) -> str:
    return "\n".join(line for line in text.split("\n") if unnumbered(line) not in lines)


def unnumbered(line: str) -> str:
    """The line without a page number at either end."""
    return re.sub(r"^\d{1,4}\s+|\s+\d{1,4}$", "", folded(line)) if line.strip() else ""


def folded(text: str) -> str:
    return " ".join(text.split())


def wanted_articles(theirs: str, drawn: Sequence[str]) -> Counter[tuple[str, int]]:
    """(number, page) of each article of the supplied text that a page's own text begins a line with."""
    left = Counter(HEADING.findall(theirs))
    wanted: Counter[tuple[str, int]] = Counter()
    for number, page in enumerate(drawn, 1):
        for article in HEADING.findall(page):
            if left[article]:
                left[article] -= 1
                wanted[article, number] += 1
    return wanted


def found_articles(read: Sequence[PageText]) -> Counter[tuple[str, int]]:
    """The same of what we made of the document."""
    starts, offset = [], 0
    for page in read:
        starts.append(offset)
        offset += len(page.text)
    marks = legal_marks("".join(p.text for p in read))
    return Counter(
        (number[0], read[bisect_right(starts, m.start) - 1].number or 0)
        for m in marks
        if m.rank in (ARTICLE, QUOTED) and (number := re.search(r"\d+\w?", m.short))
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    count = int(arguments.pop(arguments.index("--worst") + 1)) if "--worst" in arguments else 0
    named = [argument for argument in arguments if not argument.startswith("--")]
    main(Path(named[0]) if named else PROJECT.parent / "shared" / "data" / "phapluat-vi", count)
