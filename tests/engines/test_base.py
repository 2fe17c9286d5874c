"""Text leaves an engine whole: characters, stop words, and tokens that return."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from chatbot.engines.base import StopWords, Transcript, Utf8Stream


@given(st.text(), st.lists(st.integers(1, 5), min_size=1))
def test_bytes_cut_anywhere_become_the_same_text(text: str, sizes: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    stream, at, pieces = Utf8Stream(), 0, []
    while at < len(data):
        size = sizes[at % len(sizes)]
        pieces.append(stream.feed(data[at : at + size]))
        at += size
    assert "".join(pieces) == data.decode()


@given(
    st.text("abc"), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.integers(1, 4)
)
def test_text_goes_through_up_to_the_first_stop_word(
    text: str, stops: list[str], size: int
) -> None:
    words, shown = StopWords(stops), ""
    for at in range(0, len(text), size):
        shown += words.feed(text[at : at + size])
        # Nothing that was shown may turn out to be the beginning of a stop word.
        assert not any(stop in shown for stop in stops)
    shown += words.end()
    found = [text.index(stop) for stop in stops if stop in text]
    if found:
        assert words.stopped
        # Which of two overlapping stop words is met first depends on how the text arrives.
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
    else:
        assert not words.stopped
        assert shown == text


def _pairs(text: str, *, first: bool) -> list[int]:
    """A tokenizer of two letters a token, the odd one alone; 0 opens a prompt."""
    return [0] * first + [hash_of(text[at : at + 2]) for at in range(0, len(text), 2)]


def hash_of(piece: str) -> int:
    return int.from_bytes(piece.encode(), "big") + 1


def _spelled(tokens: Sequence[int]) -> str:
    return b"".join(
        (t - 1).to_bytes((t.bit_length() + 7) // 8, "big") for t in tokens if t
    ).decode()


def _single(text: str) -> list[int]:
    return [hash_of(letter) for letter in text]


def test_an_answer_spelled_otherwise_returns_as_it_was_written() -> None:
    transcript = Transcript(_pairs, _spelled)
    prompt = transcript.tokens("question")
    answer = _single("answer")
    transcript.remember("question", prompt, answer)
    following = transcript.tokens("questionanswer, more")
    assert following == [*prompt, *answer, *_pairs(", more", first=False)]
    assert transcript.tokens("question") == prompt
    # The prompt of the second turn is again a beginning.
    transcript.remember("questionanswer, more", following, [])
    assert transcript.tokens("questionanswer, more") == following


def test_a_trimmed_answer_returns_as_far_as_it_goes() -> None:
    transcript = Transcript(_pairs, _spelled)
    prompt = transcript.tokens("question")
    transcript.remember("question", prompt, _single("answer  "))
    following = transcript.tokens("questionanswer; more")
    assert following[: len(prompt) + 6] == [*prompt, *_single("answer")]
    assert _spelled(following) == "questionanswer; more"


def test_another_conversation_is_tokenised_as_ever() -> None:
    transcript = Transcript(_pairs, _spelled)
    transcript.remember("question", transcript.tokens("question"), _single("answer"))
    assert transcript.tokens("something else") == _pairs("something else", first=True)
