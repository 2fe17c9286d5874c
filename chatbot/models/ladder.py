"""The ladder: how large a model would be in each quantisation, and the best one that fits this PC now.

Sizes follow llama.cpp's own rule of which tensor gets which type (src/llama-quant.cpp), from the source's
header alone; nothing is read or written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from chatbot.errors import ModelError
from chatbot.hardware.detect import Installed
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.gguf import TYPES
from chatbot.memory.plan import USUAL_CONTEXT, Wishes, plan
from chatbot.types import Hardware, MemoryPlan

RUNGS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""From the most exact to the smallest. F16 is shown and never the best: Q8_0 answers alike at half the size."""
WELL = RUNGS[1:5]
"""Types that a model still writes well in; below, a whole GPU is not worth the precision."""

_BLOCKS = {name: per_block for name, per_block, _ in TYPES.values()}
_BYTES = {name: size / per_block for name, per_block, size in TYPES.values()}
_MAIN = {
    "Q2_K": "Q2_K", "Q3_K_S": "Q3_K", "Q3_K_M": "Q3_K", "Q3_K_L": "Q3_K", "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K", "Q5_K_S": "Q5_K", "Q5_K_M": "Q5_K",
}  # fmt: skip
_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}  # fmt: skip
# What a tensor does, by its name in GGUF files and in model folders; the first that fits.
_ROLES = (
    ("embedding", re.compile(r"^token_embd\.|embed_tokens\.|\bwte\.|word_embeddings\.")),
    ("output", re.compile(r"^output\.weight$|^lm_head\.|\.lm_head\.|^embed_out\.")),
    ("kept", re.compile(r"norm|ffn_gate_inp|\.gate\.weight$|conv1d|position_embd|\bwpe\.|router")),
    ("qkv", re.compile(r"attn_qkv\.|qkv_proj\.|query_key_value\.|c_attn\.|W_pack\.|Wqkv\.")),
    ("value", re.compile(r"attn_v\.|\.v_proj\.|\.wv\.")),
    ("attention_output", re.compile(r"attn_output\.|\.o_proj\.|attn\.c_proj\.|attention\.dense\.|\.wo\.")),
    ("down", re.compile(r"ffn_down|down_proj|\.w2\.|mlp\.c_proj\.|\.fc2\.|dense_4h_to_h\.")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rung:
    """A quantisation: bytes of its weights, how it would run here, and whether it is the one to take."""

    type: str
    size: int
    plan: MemoryPlan
    best: bool = False


def ladder(
    facts: ModelFacts,
    hardware: Hardware,
    wishes: Wishes | None = None,
    installed: Installed | None = None,
) -> tuple[Rung, ...]:
    """Every rung for a model folder or float GGUF, at most one of them `best`: none where nothing fits.

    The best is the most exact that runs wholly on the GPU while it still writes well, else the most
    exact that fits at all, with the wished context or the usual one. Raises what `plan` does.
    """
    wishes = wishes or Wishes()
    context = wishes.context or min(facts.context or USUAL_CONTEXT, USUAL_CONTEXT)
    wishes = replace(wishes, context=context, backend=None, precision=None)
    rungs = []
    for wanted in RUNGS:
        made = as_quantised(facts, wanted)
        rungs.append(Rung(wanted, made.size, plan(hardware, made, wishes, installed)))
    fitting = [rung for rung in rungs[1:] if rung.plan.fits]
    on_gpu = [r for r in fitting if r.plan.device in ("cuda", "mps") and r.type in WELL]
    best = next(iter(on_gpu or fitting), None)
    return tuple(replace(rung, best=rung is best) for rung in rungs)


def as_quantised(facts: ModelFacts, wanted: str) -> ModelFacts:
    """The facts of the GGUF that converting and quantising would make. Raises ModelError for odd sources."""
    if facts.format == "adapter":
        raise ModelError(facts.format, name=facts.name)
    tensors = tuple(_as_quantised(tensor, facts, wanted) for tensor in facts.tensors)
    return replace(facts, format="gguf", quantisation=wanted, tensors=tensors)


def role_of(name: str) -> str:
    """What the tensor of that name does: embedding, output, kept, qkv, value, attention_output, down, other."""
    return next((role for role, pattern in _ROLES if pattern.search(name)), "other")


def _as_quantised(tensor: Tensor, facts: ModelFacts, wanted: str) -> Tensor:
    role = role_of(tensor.name)
    name = {"embedding": "token_embd.weight", "output": "output.weight"}.get(role, tensor.name)
    if len(tensor.shape) < 2 or role == "kept" or not tensor.name.endswith("weight"):
        return Tensor(name, tensor.shape, "F32", tensor.elements * 4)
    used = _fitting(_type(role, tensor, facts, wanted), tensor.shape[-1])
    return Tensor(name, tensor.shape, used, int(tensor.elements * _BYTES[used]))


def _type(role: str, tensor: Tensor, facts: ModelFacts, wanted: str) -> str:
    """llama.cpp's choice for a model that is no mixture of experts."""
    main = _MAIN.get(wanted, wanted)
    if wanted in ("F16", "BF16", "F32", "Q8_0"):
        return main
    if role == "output" or (role == "embedding" and facts.tied):
        return "Q6_K" if tensor.shape[-1] % _BLOCKS[main] == 0 else "Q8_0"
    block, count = tensor.block or 0, len(facts.layers)
    shared = bool(facts.layers) and facts.layers[0].heads >= 4 * max(facts.layers[0].kv_heads, 1)
    better = _MORE.get((wanted, role), main)
    if wanted in ("Q4_K_M", "Q5_K_M") and role in ("value", "down"):
        return "Q6_K" if _gets_more(block, count) else main
    if wanted == "Q4_K_S" and (
        (role == "value" and block < 4) or (role == "down" and block < count // 8)
    ):
        return "Q5_K"
    if wanted == "Q3_K_M" and (
        (role == "value" and block < 2) or (role == "down" and block < count // 16)
    ):
        return "Q5_K"
    if wanted == "Q2_K" and role in ("value", "qkv") and shared:
        return "Q4_K"
    if wanted in ("IQ4_XS", "IQ4_NL") and (
        (role in ("value", "qkv") and shared) or (role == "down" and block < count // 8)
    ):
        return "Q5_K"
    return better


_MORE = {
    ("Q2_K", "value"): "Q3_K", ("Q2_K", "qkv"): "Q3_K", ("Q2_K", "down"): "Q3_K",
    ("Q2_K", "attention_output"): "Q3_K", ("Q3_K_M", "value"): "Q4_K", ("Q3_K_M", "down"): "Q4_K",
    ("Q3_K_M", "attention_output"): "Q4_K", ("Q3_K_M", "qkv"): "Q4_K", ("Q3_K_L", "value"): "Q5_K",
    ("Q3_K_L", "down"): "Q5_K", ("Q3_K_L", "attention_output"): "Q5_K", ("Q3_K_L", "qkv"): "Q5_K",
    ("Q4_K_M", "qkv"): "Q5_K", ("Q5_K_M", "qkv"): "Q6_K",
}  # fmt: skip


def _gets_more(block: int, count: int) -> bool:
    """The first and the last eighth of the layers and every third between (`use_more_bits`)."""
    return block < count // 8 or block >= 7 * count // 8 or (block - count // 8) % 3 == 2


def _fitting(wanted: str, columns: int) -> str:
    """The type itself, or what llama.cpp takes where its blocks do not fit the columns."""
    if columns % _BLOCKS[wanted]:
        wanted = _FALLBACK.get(wanted, "F16")
    return wanted if columns % _BLOCKS[wanted] == 0 else "F16"
