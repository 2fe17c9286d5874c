"""What nobody else does: prove that a model still is the model it was made from.

step.py          the step `verify`: which checks, in which order, and the verdict
hashes.py        files against their manifest
stored.py        a model as it lies on the disk, read a few rows at a time
names.py         which tensor is which: Hugging Face ↔ GGUF, permuted q and k, Gemma's norms
number_types.py  number types: decode, round, and what llama.cpp's quantiser makes of the same rows
tensors.py       structure, finite, weights (ε), embedding      ones.py  ones, saved and loaded
adapter.py       what an adapter must have changed
settings.py      the geometry a model claims
tokens.py        tokenizers      templates.py  chat templates      texts.py  what they are asked
outputs.py       δ: logits, KL, first choices, perplexity, σ² of repetitions
thresholds.py    the limits
"""

from __future__ import annotations

from chatbot.models.verify.step import verify

__all__ = ["verify"]
