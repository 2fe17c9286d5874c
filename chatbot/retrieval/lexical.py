"""How much of a question a text speaks of, counted in the question's own words."""

from __future__ import annotations

from collections.abc import Mapping

from chatbot.text import folded_words


def coverage(word_weights: Mapping[str, float], text: str) -> float:
    """The share (0..1) of the question's word weights whose words stand in the text.

    Rare words weigh much, words that stand everywhere nearly nothing, so '35' and 'cảnh báo' count and
    'của' does not. 0 for a question without words.
    """
    total = sum(word_weights.values())
    if total <= 0:
        return 0.0
    present = set(folded_words(text.replace("_", " ")))
    return sum(weight for word, weight in word_weights.items() if word in present) / total
