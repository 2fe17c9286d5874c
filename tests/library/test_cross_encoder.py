"""Reranking with a real, tiny, randomly initialised cross-encoder; honest words when there is none."""

import pytest

from chatbot.errors import BrokenModel, MissingBackend, NoReranker
from chatbot.library.cross_encoder import CrossEncoding
from chatbot.library.index import Index
from chatbot.retrieval.search import Search
from tests.library.index_data import LAWS, put


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A BERT of a few thousand parameters with a vocabulary of letters."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("cross encoder")
    letters = [
        *"abcdefghijklmnopqrstuvwxyz0123456789.,›",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]))
    BertTokenizerFast(str(vocabulary), model_max_length=128).save_pretrained(folder)
    torch.manual_seed(7)
    BertForSequenceClassification(
        BertConfig(
            vocab_size=5 + len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=128, num_labels=1, initializer_range=1.0,
        )
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def test_the_search_follows_the_cross_encoder_when_asked_and_only_then(database, paths, model):
    put(database, LAWS)
    index = Index(database, paths.index, "hearth-surface", "1")
    try:
        assert index.wait_ready(60)
        search = Search(index)
        plain = search.find("chấm dứt hợp đồng lao động")
        with pytest.raises(NoReranker):
            search.find("chấm dứt hợp đồng lao động", rerank=True)
        index.use_reranker(model)
        ranked = search.find("chấm dứt hợp đồng lao động", rerank=True).results
        texts = [f"{r.document} › {r.passage.path}\n{r.passage.text}" for r in ranked]
        scores = CrossEncoding(model).scores("chấm dứt hợp đồng lao động", texts)
        assert scores == sorted(scores, reverse=True)
        assert len({*scores}) > 1
        assert {r.passage.id for r in ranked} == {r.passage.id for r in plain.results}
        assert search.find("chấm dứt hợp đồng lao động").results == plain.results
    finally:
        index.close()


def test_without_sentence_transformers_the_error_says_what_is_missing(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(MissingBackend):
        CrossEncoding(model)


def test_a_folder_that_is_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(BrokenModel):
        CrossEncoding(str(tmp_path))
    with pytest.raises(BrokenModel):
        CrossEncoding("no-such-model")
