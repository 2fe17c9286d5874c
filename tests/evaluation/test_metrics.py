"""Metrics: ties never flatter, known rankings give known figures."""

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatbot.evaluation.metrics import (
    difference,
    difference_interval,
    gold_ranks,
    interval,
    likely_share,
    mean_measures,
    measures,
    percentile,
    ranks_of,
    sign_test,
)


def test_a_gold_document_in_a_tie_gets_the_worst_rank():
    assert gold_ranks([("g", 1.0), ("a", 1.0), ("b", 1.0), ("c", 0.5)], {"g"}) == [3]
    assert gold_ranks([("g", 2.0), ("a", 1.0)], {"g"}) == [1]


def test_gold_documents_do_not_count_against_each_other():
    assert gold_ranks([("g", 1.0), ("h", 1.0), ("a", 1.0)], {"g", "h"}) == [2, 3]
    assert gold_ranks([("a", 3.0), ("g", 2.0), ("h", 1.0)], {"g", "h"}) == [2, 3]
    assert gold_ranks([("a", 3.0)], {"g"}) == []


def test_figures_of_known_rankings():
    first = measures([1], 1)
    assert set(first.values()) == {1.0}
    second = measures([2, 7], 2)
    assert (second["recall@1"], second["recall@5"], second["mrr@10"]) == (0, 1, 0.5)
    gain = 1 / math.log2(3) + 1 / math.log2(8)
    assert second["ndcg@10"] == pytest.approx(gain / (1 + 1 / math.log2(3)))
    assert set(measures([], 1).values()) == {0.0}
    assert measures([11], 1)["mrr@10"] == 0
    assert mean_measures([first, measures([], 1)])["recall@1"] == 0.5


def test_intervals_hold_the_mean_shrink_with_questions_and_repeat():
    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 200
    low, high = interval(few)
    assert low < 0.5 < high
    narrow_low, narrow_high = interval(many)
    assert narrow_high - narrow_low < high - low
    assert interval(few) == (low, high)
    assert interval([]) == (0.0, 0.0)


def test_a_paired_difference_sees_a_small_steady_gain():
    base = [float(n % 3 == 0) for n in range(300)]
    better = [1.0 if n % 20 == 1 else value for n, value in enumerate(base)]
    low, _ = difference_interval(better, base)
    assert low > 0


def test_percentiles_are_values_that_happened():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0
    assert percentile([], 0.5) == 0.0


# --- ties and chance ------------------------------------------------------------------------

rankings = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.sampled_from([1.0, 0.5, 0.25])), max_size=5
).map(lambda pairs: list(dict(pairs).items()))


@given(rankings, st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=3))
def test_of_all_orders_of_tied_results_the_worst_for_the_gold_counts(ranking, gold):
    found = gold_ranks(ranking, gold)
    orders = [
        [document for document, _ in order]
        for order in permutations(ranking)
        if [score for _, score in order] == sorted((s for _, s in ranking), reverse=True)
    ]
    places = [[n for n, d in enumerate(order, 1) if d in gold] for order in orders]
    assert (min(found) if found else None) == max((min(p) for p in places if p), default=None)
    assert len(found) == len({document for document, _ in ranking} & gold)
    assert found == sorted(found)


@given(rankings, st.sampled_from("abcdefg"))
def test_a_tie_never_ranks_better_than_no_tie(ranking, gold):
    tied = [(document, 1.0) for document, _ in ranking]
    assert [min(r, default=99) for r in [gold_ranks(tied, {gold})]] >= [
        min(r, default=99) for r in [gold_ranks(ranking, {gold})]
    ]


def test_a_gold_counts_once_where_it_scores_best():
    ranking = [({"g"}, 0.9), ((), 0.8), ({"g"}, 0.7), ({"h"}, 0.6), ((), 0.6)]
    assert ranks_of(ranking) == [1, 4]


def test_the_paired_bootstrap_of_a_hand_computed_case():
    """Of two questions A wins one: each resample has 0, 1 or 2 wins with odds 1:2:1."""
    found = difference([1.0, 0.0], [0.0, 0.0])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    # The same gain on every question leaves nothing to chance but the number of questions.
    steady = difference([0.75] * 4, [0.5] * 4)
    assert (steady.mean, steady.low, steady.high) == (0.25, 0.25, 0.25)
    assert not steady.certain  # 4 of 4 come from tossing a coin one time in eight
    assert difference([0.75] * 6, [0.5] * 6).certain
    # Pairs matter: unpaired, means of 0.5 and 0.4 over ten questions would prove nothing.
    a = [1.0] * 50 + [0.0] * 50
    b = [1.0] * 40 + [0.0] * 60
    paired = difference(a, b)
    assert paired.certain
    assert paired.low > 0
    (low, _), (_, other_high) = interval(a), interval(b)
    assert other_high > low  # the two intervals overlap
    assert difference(b, a).mean == -paired.mean


def test_a_sign_test_is_that_of_a_coin():
    assert sign_test(6, 0) == 2 / 64
    assert sign_test(0, 6) == 2 / 64
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(3, 3) == 1.0
    assert sign_test(0, 0) == 1.0
    assert 0 < sign_test(1500, 10) < 1e-300 or sign_test(1500, 10) == 0.0


def test_a_share_of_few_questions_is_never_certain():
    low, high = likely_share(5, 5)
    assert (round(low, 3), high) == (0.566, 1.0)  # Wilson's interval, as in the tables
    low, high = likely_share(0, 5)
    assert (round(low, 3), round(high, 3)) == (0.0, 0.434)
    assert likely_share(0, 0) == (0.0, 1.0)
    low, high = likely_share(840, 1000)
    assert 0.81 < low < 0.84 < high < 0.87
