"""How far a sound result may be from its input; docs/decisions.md has the measurements behind each number.

Weights: a float type must hold exactly the nearest values. A quantised type must hold what llama.cpp makes
of the same rows; where that cannot be recomputed bit for bit, its error may be this much larger.
Outputs: logits may differ by what the error of the weights and of the engine's arithmetic explains.
"""

from __future__ import annotations

import math

RELATIVE = {
    "Q8_0": 0.02, "Q6_K": 0.05, "Q5_K": 0.08, "Q5_1": 0.09, "Q5_0": 0.11, "Q4_K": 0.14, "Q4_1": 0.18,
    "Q4_0": 0.18, "IQ4_NL": 0.15, "IQ4_XS": 0.15, "MXFP4": 0.22, "NVFP4": 0.22, "Q3_K": 0.28,
    "IQ3_S": 0.55, "IQ3_XXS": 0.60, "Q2_K": 0.55, "IQ2_S": 0.80, "IQ2_XS": 0.80, "IQ2_XXS": 0.90,
    "IQ1_S": 0.90, "IQ1_M": 0.90, "TQ1_0": 0.95, "TQ2_0": 0.95, "Q1_0": 0.95, "Q2_0": 0.80,
}  # fmt: skip
"""ε / ‖θ‖ of one tensor when nothing better than the type is known: 1.4 times the worst that was measured."""

WORSE_TENSOR = 1.10
"""ε of a tensor against llama.cpp's own, when the bits differ (another build made it)."""
WORSE_ROW = 1.75
"""The same for the worst row."""
WORSE_TENSOR_WEIGHTED = 2.0
WORSE_ROW_WEIGHTED = 4.0
"""With an importance matrix that is not here, rows give up accuracy where it does not matter."""
ODD_ROW = 2.5
"""A row that was not recomputed, against the worst row of its tensor that was."""
SAME_BUILD = 0.9
"""Share of the rows that agree bit for bit from which on the others are damaged, not made elsewhere."""

ARITHMETIC = {"F32": 1e-5, "F16": 4e-4, "BF16": 3e-3}
"""What an engine rounds the other factor of a product to, relative to its length."""
OTHER_ARITHMETIC = 7e-3
"""llama.cpp reads activations in 8 bits where weights are quantised."""
GAIN = 20.0
"""How much the logits of a shallow model may enlarge the relative error of weights and arithmetic.

Trained models enlarge it one or two times, random ones up to five: they amplify whatever comes.
"""
UNRELATED = 1.5
"""‖Δlogit‖ / ‖logit‖ of two models that have nothing in common is √2; a limit above says nothing."""
NOTHING = 1e-6
"""The same engine on the same values: what another order of summing may change."""
CLEAR = 6.0
"""A first choice is clear when it leads by this many times the allowed error."""
AGREEMENT = 0.99
"""Share of the clear first choices that must stay."""


def output_limit(weights: float, arithmetic: float, layers: int) -> float:
    """The allowed ‖Δlogit‖ / ‖logit‖ for a relative error of the weights and of the arithmetic."""
    depth = max(1.0, math.sqrt(layers / 8))
    return min(GAIN * math.hypot(weights, arithmetic) * depth, UNRELATED) + NOTHING


def perplexity_limit(weights: float, perplexity: float, vocabulary: int, otherwise: float) -> float:
    """By how much perplexity may change: little for a model that knows the language of the passage.

    For one that does not (random, or trained on something else) `otherwise`, what its logits allow.
    """
    knows = perplexity < math.sqrt(vocabulary)
    return min(1.05 + 8 * weights, otherwise) if knows else otherwise
