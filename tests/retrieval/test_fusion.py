"""Fusion: what two scores of a candidate become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.retrieval.fusion import fuse

scores = st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=1, max_size=30)


def order(values):
    return sorted(range(len(values)), key=lambda n: -values[n])


def test_the_weight_decides_between_two_opinions():
    lexical, dense = [9.0, 5.0, 1.0], [0.1, 0.2, 0.9]
    assert order(fuse(lexical, dense, 0.03))[0] == 0
    assert order(fuse(lexical, dense, 0.97))[0] == 2


def test_scales_do_not_matter():
    lexical, dense = [9.0, 5.0, None, 1.0], [0.1, None, 0.8, 0.2]
    scaled = fuse([s and s * 50 for s in lexical], dense, 0.5)
    assert scaled == pytest.approx(fuse(lexical, dense, 0.5))


def test_a_side_that_found_nothing_leaves_it_to_the_other():
    assert order(fuse([None] * 3, [0.1, 0.3, 0.2], 0.03)) == [1, 2, 0]
    assert order(fuse([1.0, 3.0, 2.0], [None] * 3, 0.5)) == [1, 2, 0]
    assert fuse([], [], 0.5) == []


def test_equal_candidates_stay_equal():
    assert len(set(fuse([2.0, 2.0, 2.0], [0.5, 0.5, 0.5], 0.5))) == 1


@given(scores, st.floats(0, 1))
def test_a_candidate_better_on_both_sides_is_never_below(lexical, weight):
    dense = [None if s is None else s / 2 for s in lexical]
    fused = fuse(lexical, dense, weight)
    for n, score in enumerate(lexical):
        for m, other in enumerate(lexical):
            if (score or 0) > (other or 0):
                assert fused[n] >= fused[m] - 1e-9
