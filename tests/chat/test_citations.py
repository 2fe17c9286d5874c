"""A citation points to something that was in the prompt, or it is not shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.chat.citations import cited_numbers, keep_real_citations, split_thinking


@pytest.mark.parametrize(
    ("text", "known", "kept"),
    [
        ("Điểm dưới 1,0 [1].", {1}, "Điểm dưới 1,0 [1]."),
        ("Điểm dưới 1,0 [7].", {1}, "Điểm dưới 1,0."),
        ("Hai nguồn [1, 2] và [3].", {1, 3}, "Hai nguồn [1] và [3]."),
        ("Không có nguồn.", set(), "Không có nguồn."),
        ("Mảng a[0] = 1", {1}, "Mảng a = 1"),
    ],
)
def test_unmatched_markers_are_removed(text, known, kept):
    assert keep_real_citations(text, known) == kept


@given(st.text(alphabet="ab [],;123", max_size=60), st.sets(st.integers(1, 3)))
def test_what_remains_is_known_and_a_second_pass_changes_nothing(text, known):
    once = keep_real_citations(text, known)
    assert set(cited_numbers(once)) <= known
    assert keep_real_citations(once, known) == once


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>\nhmm\n</think>\n\nXong", "hmm", "Xong"),
        ("<think>chưa hết", "chưa hết", ""),
        ("hmm</think>Xong", "hmm", "Xong"),
        ("Không nghĩ", "", "Không nghĩ"),
    ],
)
def test_thinking_is_kept_apart(text, thinking, answer):
    assert split_thinking(text) == (thinking, answer)
