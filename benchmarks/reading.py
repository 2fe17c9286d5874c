"""How much of official PDFs arrives as text, and whether every article is found on its page.

    python -m benchmarks.reading [FOLDER]          FOLDER: ../shared/data/phapluat-vi

Per file and in all: characters of the reference text that are missing and that are too many (white space
and the gazette's running heads left out; needs no alignment), the words in order (longest common
subsequence by difflib, an upper bound of the loss), and the articles found of those the reference has.
"""

from __future__ import annotations

import difflib
import json
import re
import statistics
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path

from chatbot.library.legal import ARTICLE, QUOTED, legal_marks
from chatbot.library.readers import Reader
from chatbot.settings import PROJECT

RUNNING = re.compile(r"\s*\d*\s*CÔNG BÁO/Số.*|\s*\d+\s*")
HEADING = re.compile(r"^\s*[“\"]?(?:Điều|ĐIỀU)\s+(\d+[a-zđ]?)\s*\.", re.MULTILINE)


def main(folder: Path) -> None:
    rows = [
        json.loads(line)
        for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    reader = Reader()
    ratios, lost, extra, found, wanted, pages, seconds = [], [], [], 0, 0, 0, 0.0
    for row in rows:
        started = time.perf_counter()
        reading = reader.read(folder / row["file"], row["file"])
        seconds += time.perf_counter() - started
        pages += len(reading.document.pages)
        text = "".join(p.text for p in reading.document.pages)
        reference = unicodedata.normalize(
            "NFC", (folder / row["text_file"]).read_text(encoding="utf-8")
        )
        kept = "\n".join(line for line in reference.split("\n") if not RUNNING.fullmatch(line))
        ours, theirs = (Counter(c for c in t if not c.isspace()) for t in (text, kept))
        lost.append((theirs - ours).total() / theirs.total())
        extra.append((ours - theirs).total() / theirs.total())
        ratios.append(
            difflib.SequenceMatcher(None, text.split(), kept.split(), autojunk=False).ratio()
        )
        articles = Counter(HEADING.findall(kept))
        marks = Counter(
            re.findall(r"\d+\w?", m.short)[0]
            for m in legal_marks(text)
            if m.rank in (ARTICLE, QUOTED)
        )
        found += (articles & marks).total()
        wanted += articles.total()
        print(f"{ratios[-1]:.4f} words, {lost[-1]:.4f} lost, {extra[-1]:.4f} extra  {row['file']}")
    reader.close()
    print(
        f"{len(rows)} files, {pages} pages in {seconds:.1f} s; words in order: median {statistics.median(ratios):.4f},"
        f" {sum(r >= 0.95 for r in ratios)} of {len(rows)} at least .95; characters lost: median"
        f" {statistics.median(lost):.4f}, most {max(lost):.4f}; articles {found} of {wanted}"
    )


if __name__ == "__main__":
    main(
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else PROJECT.parent / "shared" / "data" / "phapluat-vi"
    )
