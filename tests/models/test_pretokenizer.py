"""The pre-tokenizer of a vocabulary that nobody published: told by its structure, proven by its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import CannotConvert
from chatbot.models.pretokenizer import (
    PROBES,
    STRUCTURES,
    PreTokenizer,
    find_pre_tokenizer,
    splits_of,
)

# What pre-tokenizers disagree about must be in the vocabulary, or every one would write the same tokens.
TRAINING = [
    *PROBES,
    "they've we've I'VE 'RE 're 1234 123 12 2026 .350 000 \n\n\n \n\n  \t\t ====== Http Server aB Ab AB",
] * 20


WHOLE_WORDS = ("llama-bpe", "tekken")
"""Of these llama.cpp also believes that a word of the vocabulary is never taken apart."""


def tokenizer_of(folder: Path, steps: list[Any], *, whole_words: bool = False) -> Any:
    """A byte-level tokenizer trained to split that way, saved into `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(ignore_merges=whole_words))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(TRAINING, trainer)
    made.save(str(folder / "tokenizer.json"))
    return made


def vocabulary_of(tokenizer: Any, file: Path, *, says_no_start: bool = True) -> Path:
    """The vocabulary alone as GGUF, as the converter writes it."""
    import json

    from gguf import GGUFWriter, TokenType

    content = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(content["vocab"], key=content["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["merges"]]
    writer = GGUFWriter(file, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(merges)
    if says_no_start:
        writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return file


def found(folder: Path, steps: list[Any], *, whole_words: bool = False) -> PreTokenizer:
    tokenizer = tokenizer_of(folder, steps, whole_words=whole_words)
    vocabulary = vocabulary_of(tokenizer, folder / "vocabulary.gguf")
    expected = [tokenizer.encode(probe).ids for probe in PROBES]
    return find_pre_tokenizer(folder, vocabulary, expected)


def splitting(expressions: tuple[str, ...]) -> list[Any]:
    from tokenizers import Regex, pre_tokenizers

    splits = [pre_tokenizers.Split(Regex(each), "isolated") for each in expressions]
    return [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_known_structure_is_found_and_writes_the_same_tokens(tmp_path: Path, name: str) -> None:
    got = found(tmp_path, splitting(STRUCTURES[name]), whole_words=name in WHOLE_WORDS)
    assert (got.name, got.why, got.tried) == (name, "structure", 1)


def test_byte_level_alone_is_gpt_2(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    steps = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    assert splits_of_saved(tmp_path, steps) == STRUCTURES["smollm"]
    assert splits_of_saved(tmp_path, steps[1:]) == STRUCTURES["gpt-2"]


def splits_of_saved(folder: Path, steps: list[Any]) -> tuple[str, ...] | None:
    tokenizer_of(folder, steps)
    return splits_of(folder)


def test_another_spelling_of_a_known_rule_is_found_by_trial(tmp_path: Path) -> None:
    spelled = STRUCTURES["llama-bpe"][0].replace(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?i:'[stmd]|'re|'ve|'ll)"
    )
    got = found(tmp_path, splitting((spelled,)))
    assert (got.name, got.why) == ("llama-bpe", "trial")


def test_a_structure_alone_is_not_believed(tmp_path: Path) -> None:
    """With Llama 3's name llama.cpp puts an opening token first, which this tokenizer does not write."""
    tokenizer = tokenizer_of(tmp_path, splitting(STRUCTURES["llama-bpe"]))
    vocabulary = vocabulary_of(tokenizer, tmp_path / "vocabulary.gguf", says_no_start=False)
    expected = [tokenizer.encode(probe).ids for probe in PROBES]
    got = find_pre_tokenizer(tmp_path, vocabulary, expected)
    assert (got.name, got.why) == ("dbrx", "trial")


def test_a_rule_that_llama_cpp_does_not_have_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(CannotConvert, match="run the model folder itself"):
        found(tmp_path, splitting((r"[aeiou]+|[^aeiou]+",)))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pre_tokenizer": {"type": "Metaspace"}}'])
def test_what_is_no_list_of_splits_has_no_structure(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    assert splits_of(tmp_path) is None
