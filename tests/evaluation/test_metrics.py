"""Metrics: ties never flatter, known rankings give known figures."""

import math

import pytest

from chatbot.evaluation.metrics import (
    difference_interval,
    gold_ranks,
    interval,
    mean_measures,
    measures,
    percentile,
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
