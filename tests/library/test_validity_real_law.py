"""Sixty official documents as they were supplied: number, kind, body and dates are what a person read."""

from __future__ import annotations

from benchmarks.validity import expectations, values
from chatbot.library.legal import references
from chatbot.library.validity import validity_of
from chatbot.text import nfc


def test_number_kind_body_and_dates_of_every_document(shared_data):
    for stem, expected in expectations().items():
        text = nfc((shared_data / "phapluat-vi" / f"{stem}.txt").read_text(encoding="utf-8"))
        found = values(validity_of(text))
        # Lines broken as printed, running heads in between: ties may be missed there, not invented.
        ties = found.pop("ties"), expected.pop("ties")
        assert found == expected, stem
        assert {tie[1:] for tie in ties[0]} <= {tie[1:] for tie in ties[1]}, stem


def test_a_law_points_into_itself_and_to_others(shared_data):
    stem = "nghi-dinh-so-12-2022-nd-cp-36716"
    text = nfc((shared_data / "phapluat-vi" / f"{stem}.txt").read_text(encoding="utf-8"))
    found = references(text)
    own = [r for r in found if r.own and r.article]
    assert len(own) > 100
    assert all(int("".join(filter(str.isdigit, r.article.split(".")[0]))) <= 64 for r in own)
    assert any(r.name == "Bộ luật Lao động" for r in found)
