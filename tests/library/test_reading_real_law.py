"""Official PDFs: the text is all there, and every article is found with its number, on its page."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import pytest

from chatbot.library.legal import ARTICLE, QUOTED, legal_marks

FILES = [
    "luat-so-51-2024-qh15-43559",
    "nghi-dinh-so-12-2022-nd-cp-36716",
    "thong-tu-so-06-2026-tt-btc-468899",
    "van-ban-hop-nhat-so-58-vbhn-vpqh-45848",
]
HEADER = re.compile(r"\s*\d*\s*CÔNG BÁO/Số.*|\s*\d+\s*")
HEADING = re.compile(r"^\s*[“\"]?(?:Điều|ĐIỀU)\s+(\d+[a-zđ]?)\s*\.", re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_an_official_pdf(shared_data, reader, name):
    reading = reader.read(shared_data / "phapluat-vi" / f"{name}.pdf", name)
    reference = unicodedata.normalize(
        "NFC", (shared_data / "phapluat-vi" / f"{name}.txt").read_text(encoding="utf-8")
    )
    kept = "\n".join(line for line in reference.split("\n") if not HEADER.fullmatch(line))
    text = "".join(p.text for p in reading.document.pages)

    # Characters, so that a word broken at a line end in either text does not count.
    ours, theirs = (Counter(c for c in t if not c.isspace()) for t in (text, kept))
    lost, invented = (theirs - ours).total(), (ours - theirs).total()
    assert lost / theirs.total() < 0.005
    assert invented / theirs.total() < 0.005
    assert "CÔNG BÁO/Số" not in text

    found = Counter(
        re.search(r"\d+\w?", m.short)[0] for m in legal_marks(text) if m.rank in (ARTICLE, QUOTED)
    )
    assert Counter(HEADING.findall(kept)) - found == Counter()
    for passage in reading.passages:
        number = re.match(r"Điều \d+[a-zđ]?\.", passage.text)
        if number and f"{number[0]} " in passage.path:
            assert number[0] in reading.document.pages[passage.page - 1].text
