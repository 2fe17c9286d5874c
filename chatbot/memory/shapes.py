"""Which tensors a model has, drawn from its config.json: for a plan before any weight is on this disk.

Named as in GGUF files, outermost dimension first. A family that is not known here is drawn as a Llama
with what its config says of itself, and called an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatbot.memory.facts import Layer

Shapes = Iterator[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Family:
    """How an architecture differs from a Llama; `bias` and the like stand where no config key tells."""

    norms: tuple[str, ...] = ("attn_norm", "ffn_norm")
    norm_bias: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    head_bias: bool = False
    gated: bool = True
    fused: bool = False
    """Queries, keys and values in one matrix, gate and up in another."""
    query_norm: str = ""
    """'head': one norm for all heads; 'width': one as wide as they are together."""
    doubled_query: bool = False
    tied: bool = False
    """Where the config leaves it open."""


_FOUR = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
_AFTER = ("post_attention_norm", "post_ffw_norm")
_LLAMA = Family()

FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "ministral", "granite", "mixtral", "granitemoe", "granitemoeshared",
         "granitemoehybrid", "deepseek_v2", "deepseek_v3", "mamba2", "falcon_h1", "jamba", "bamba"), _LLAMA
    ),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family(qkv_bias=True),
    "qwen3": Family(query_norm="head"),
    "qwen3_moe": Family(query_norm="head"),
    "qwen3_next": Family(query_norm="head", doubled_query=True),
    "gemma": Family(tied=True),
    "gemma2": Family(norms=_FOUR, tied=True),
    "gemma3": Family(norms=_FOUR, query_norm="head", tied=True),
    "gemma3_text": Family(norms=_FOUR, query_norm="head", tied=True),
    "phi3": Family(fused=True),
    "phi": Family(norms=("attn_norm",), norm_bias=True, qkv_bias=True, out_bias=True, ffn_bias=True,
                  gated=False, head_bias=True),
    "olmo2": Family(norms=_AFTER, query_norm="width"),
    "olmoe": Family(query_norm="width"),
    "exaone4": Family(norms=_AFTER, query_norm="head"),
    "stablelm": Family(norm_bias=True),
    "cohere": Family(norms=("attn_norm",), tied=True),
    "cohere2": Family(norms=("attn_norm",), tied=True),
    "gpt2": Family(norm_bias=True, qkv_bias=True, out_bias=True, ffn_bias=True, gated=False, fused=True,
                   tied=True),
    "gpt_neox": Family(norm_bias=True, qkv_bias=True, out_bias=True, ffn_bias=True, gated=False, fused=True),
    "starcoder2": Family(norm_bias=True, qkv_bias=True, out_bias=True, ffn_bias=True, gated=False, tied=True),
    "mpt": Family(gated=False, fused=True, tied=True),
    "gpt_oss": Family(qkv_bias=True, out_bias=True, ffn_bias=True),
    "smollm3": Family(tied=True),
    "minicpm3": Family(tied=True),
    "mamba": Family(tied=True),
    "lfm2": Family(query_norm="head", tied=True),
    "lfm2_moe": Family(query_norm="head", tied=True),
}  # fmt: skip

Number = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Plan:
    """The config that is drawn, and what was already read of it; `number` asks it under several names."""

    config: Mapping[str, Any]
    kind: str
    number: Number
    width: int
    vocabulary: int
    feed_forward: int
    layers: tuple[Layer, ...]
    tied: bool

    @property
    def family(self) -> Family:
        return FAMILIES.get(self.kind, _LLAMA)

    def flag(self, *names: str, default: bool = False) -> bool:
        """The first of these switches that the config holds."""
        found = next((self.config[n] for n in names if self.config.get(n) is not None), default)
        return found is True


def drawn(plan: Plan) -> Shapes:
    """Every tensor of the model."""
    family, width = plan.family, plan.width
    yield "token_embd.weight", (plan.vocabulary, width)
    if plan.kind == "gpt2":
        yield "position_embd.weight", (plan.number("n_positions", default=1024), width)
    yield from _norm("output_norm", width, bias=family.norm_bias)
    if not plan.tied:
        yield "output.weight", (plan.vocabulary, width)
        if family.head_bias:
            yield "output.bias", (plan.vocabulary,)
    for number, layer in enumerate(plan.layers):
        for name, shape in _layer(plan, number, layer):
            yield f"blk.{number}.{name}", shape


def _layer(plan: Plan, number: int, layer: Layer) -> Shapes:
    family = plan.family
    recurrent = _RECURRENT.get(plan.kind)
    alone = plan.kind in ("mamba", "mamba2")
    for name in ("attn_norm",) if alone else family.norms:
        yield from _norm(name, plan.width, bias=family.norm_bias)
    if recurrent and (layer.state or not layer.kv_heads):
        yield from recurrent(plan)
    if alone:
        return
    if layer.kv_heads:
        latent = plan.config.get("kv_lora_rank") is not None
        yield from _latent(plan, layer) if latent else _attention(plan, layer)
    yield from _experts(plan) if _is_mixture(plan, number) else _dense(plan)


def _attention(plan: Plan, layer: Layer) -> Shapes:
    family, width = plan.family, plan.width
    query, key, value = (
        layer.heads * layer.key_length, layer.kv_heads * layer.key_length,
        layer.kv_heads * layer.value_length,
    )  # fmt: skip
    biased = plan.flag(
        "attention_bias", "use_qkv_bias", "use_bias", "qkv_bias", "bias", default=family.qkv_bias
    )
    parts = {"attn_q": query * (2 if family.doubled_query else 1), "attn_k": key, "attn_v": value}
    if family.fused:
        parts = {"attn_qkv": query + key + value}
    for name, rows in parts.items():
        yield from _matrix(name, rows, width, bias=biased or family.qkv_bias)
    after = family.out_bias or plan.flag("attention_bias", "use_bias")
    yield from _matrix("attn_output", width, layer.heads * layer.value_length, bias=after)
    norm = family.query_norm or ("head" if plan.flag("use_qk_norm", "qk_layernorm") else "")
    if norm:
        yield "attn_q_norm.weight", (layer.key_length if norm == "head" else query,)
        yield "attn_k_norm.weight", (layer.key_length if norm == "head" else key,)
    if plan.kind == "gpt_oss":
        yield "attn_sinks.weight", (layer.heads,)


def _latent(plan: Plan, layer: Layer) -> Shapes:
    """Multi-head latent attention, as llama.cpp's files have it."""
    width, rank = plan.width, plan.number("kv_lora_rank")
    rope = plan.number("qk_rope_head_dim")
    query = layer.heads * layer.key_length
    if plan.config.get("q_lora_rank"):
        down = plan.number("q_lora_rank")
        yield "attn_q_a.weight", (down, width)
        yield "attn_q_a_norm.weight", (down,)
        yield "attn_q_b.weight", (query, down)
    else:
        yield "attn_q.weight", (query, width)
    yield "attn_kv_a_mqa.weight", (rank + rope, width)
    yield "attn_kv_a_norm.weight", (rank,)
    if layer.latent:
        yield "attn_k_b.weight", (layer.heads, rank, layer.key_length - rope)
        yield "attn_v_b.weight", (layer.heads, layer.value_length, rank)
    else:
        rows = layer.heads * (layer.key_length - rope + layer.value_length)
        yield "attn_kv_b.weight", (rows, rank)
    yield "attn_output.weight", (width, layer.heads * layer.value_length)


def _dense(plan: Plan) -> Shapes:
    family, width, inner = plan.family, plan.width, plan.feed_forward
    bias = family.ffn_bias or plan.flag("mlp_bias", "use_bias" if not family.gated else "mlp_bias")
    if plan.kind.startswith(("qwen2_moe", "qwen3_moe", "deepseek", "lfm2_moe")):
        inner = plan.number("intermediate_size")
    if family.gated and not family.fused:
        yield from _matrix("ffn_gate", inner, width, bias=bias)
    yield from _matrix(
        "ffn_up", inner * (2 if family.gated and family.fused else 1), width, bias=bias
    )
    yield from _matrix("ffn_down", width, inner, bias=bias)


def _experts(plan: Plan) -> Shapes:
    width, count, inner = plan.width, experts(plan.config), expert_width(plan.config)
    biased = plan.kind == "gpt_oss"
    yield from _matrix("ffn_gate_inp", count, width, bias=biased)
    for name, rows, row in (("gate", inner, width), ("up", inner, width), ("down", width, inner)):
        yield f"ffn_{name}_exps.weight", (count, rows, row)
        if biased:
            yield f"ffn_{name}_exps.bias", (count, rows)
    if plan.kind in ("deepseek_v3", "lfm2_moe"):
        yield "exp_probs_b.bias", (count,)
    if shared := shared_width(plan.config):
        for name, rows, row in (
            ("gate", shared, width),
            ("up", shared, width),
            ("down", width, shared),
        ):
            yield f"ffn_{name}_shexp.weight", (rows, row)
        if plan.kind in ("qwen2_moe", "qwen3_next"):
            yield "ffn_gate_inp_shexp.weight", (width,)


def experts(config: Mapping[str, Any]) -> int:
    """How many experts a layer has; 0 for a dense model."""
    return _count(config, "num_local_experts", "num_experts", "n_routed_experts")


def experts_used(config: Mapping[str, Any]) -> int:
    """How many of them a token goes through."""
    return _count(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk")


def expert_width(config: Mapping[str, Any]) -> int:
    """The inner width of one expert."""
    return _count(config, "moe_intermediate_size", "intermediate_size")


def shared_width(config: Mapping[str, Any]) -> int:
    """The inner width of what every token goes through besides."""
    if together := _count(config, "shared_expert_intermediate_size", "shared_intermediate_size"):
        return together
    return _count(config, "n_shared_experts") * _count(config, "moe_intermediate_size")


def _count(config: Mapping[str, Any], *names: str) -> int:
    found = next((config[name] for name in names if config.get(name) is not None), 0)
    return found if type(found) is int and 0 <= found < 1 << 24 else 0


def _is_mixture(plan: Plan, number: int) -> bool:
    config = plan.config
    if experts(config) < 1:
        return False
    if number < _count(config, "first_k_dense_replace", "num_dense_layers"):
        return False
    dense = config.get("mlp_only_layers")
    if isinstance(dense, list) and number in dense:
        return False
    if plan.kind == "jamba":
        every = _count(config, "expert_layer_period") or 2
        return experts(config) > 1 and number % every == _count(config, "expert_layer_offset")
    every = _count(config, "decoder_sparse_step", "moe_layer_freq") or 1
    return (number + 1) % every == 0 if "decoder_sparse_step" in config else number % every == 0


def _mamba(plan: Plan) -> Shapes:
    """The first Mamba: `mamba` itself and Jamba's layers."""
    width = plan.width
    inner = plan.number("mamba_expand", "expand", default=2) * width
    state, kernel = plan.number("state_size", "mamba_d_state", default=16), _kernel(plan)
    rank = plan.config.get("mamba_dt_rank", plan.config.get("time_step_rank", "auto"))
    rank = rank if type(rank) is int and rank > 0 else -(-width // 16)
    yield "ssm_in.weight", (2 * inner, width)
    yield "ssm_conv1d.weight", (inner, kernel)
    yield "ssm_conv1d.bias", (inner,)
    yield "ssm_x.weight", (rank + 2 * state, inner)
    yield "ssm_dt.weight", (inner, rank)
    yield "ssm_dt.bias", (inner,)
    yield "ssm_a", (inner, state)
    yield "ssm_d", (inner,)
    yield "ssm_out.weight", (width, inner)
    if plan.kind == "jamba":
        yield "ssm_dt_norm.weight", (rank,)
        yield "ssm_b_norm.weight", (state,)
        yield "ssm_c_norm.weight", (state,)


def _mamba2(plan: Plan) -> Shapes:
    width, kernel = plan.width, _kernel(plan)
    inner, state, groups, heads = mamba2(plan.number, width)
    mixed = inner + 2 * groups * state
    yield "ssm_in.weight", (inner + mixed + heads, width)
    yield "ssm_conv1d.weight", (mixed, kernel)
    if plan.flag("mamba_conv_bias", "use_conv_bias", default=True):
        yield "ssm_conv1d.bias", (mixed,)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (heads, 1)
    yield "ssm_d", (heads, 1)
    if plan.kind != "falcon_h1" or plan.flag("mamba_rms_norm"):
        yield "ssm_norm.weight", (groups, inner // groups)
    yield "ssm_out.weight", (width, inner)


def mamba2(number: Number, width: int) -> tuple[int, int, int, int]:
    """Inner width, state, groups and heads of a second Mamba."""
    heads = number("mamba_n_heads", "num_heads", default=128)
    expanded = int(number("mamba_expand", "expand", default=2) * width)
    inner = number("mamba_d_ssm", default=expanded)
    state = number("mamba_d_state", "state_size", "ssm_state_size", default=128)
    return inner, state, number("mamba_n_groups", "n_groups", default=1), heads


def _kernel(plan: Plan) -> int:
    return plan.number("mamba_d_conv", "conv_kernel", default=4)


def _short_convolution(plan: Plan) -> Shapes:
    width = plan.width
    yield "shortconv.conv.weight", (width, plan.number("conv_L_cache", default=3))
    yield "shortconv.in_proj.weight", (3 * width, width)
    yield "shortconv.out_proj.weight", (width, width)


def _delta_net(plan: Plan) -> Shapes:
    """Qwen3-Next's linear attention."""
    width = plan.width
    key = plan.number("linear_num_key_heads") * plan.number("linear_key_head_dim")
    heads, length = plan.number("linear_num_value_heads"), plan.number("linear_value_head_dim")
    value = heads * length
    yield "attn_qkv.weight", (2 * key + value, width)
    yield "attn_gate.weight", (value, width)
    yield "ssm_conv1d.weight", (2 * key + value, plan.number("linear_conv_kernel_dim", default=4))
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (heads,)
    yield "ssm_ba.weight", (2 * heads, width)
    yield "ssm_norm.weight", (length,)
    yield "ssm_out.weight", (width, value)


_RECURRENT: Mapping[str, Callable[[Plan], Shapes]] = {
    "mamba": _mamba, "jamba": _mamba, "mamba2": _mamba2, "falcon_h1": _mamba2, "bamba": _mamba2,
    "granitemoehybrid": _mamba2, "lfm2": _short_convolution, "lfm2_moe": _short_convolution,
    "qwen3_next": _delta_net,
}  # fmt: skip


def _norm(name: str, width: int, *, bias: bool) -> Shapes:
    yield f"{name}.weight", (width,)
    if bias:
        yield f"{name}.bias", (width,)


def _matrix(name: str, rows: int, row: int, *, bias: bool) -> Shapes:
    yield f"{name}.weight", (rows, row)
    if bias:
        yield f"{name}.bias", (rows,)
