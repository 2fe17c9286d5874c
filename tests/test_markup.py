"""Shown text can load nothing, hide no link and run nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from chatbot.markup import HINT, harmless, literal

ATTACKS = [
    "![x](http://evil.example/a.png)",
    "![x][r]\n\n[r]: http://evil.example/a.png",
    "[click](javascript:alert(1))",
    "[click](http://evil.example)",
    "<img src=http://evil.example/a.png onerror=alert(1)>",
    "<script>alert(1)</script>",
    "[![x](http://evil.example/a)](http://evil.example)",
    "text ![a\n](http://evil.example)",
    "<!-- x --><iframe src='http://evil.example'>",
]


def token_types(markdown: str) -> set[str]:
    found = set()
    for token in MarkdownIt("commonmark").parse(markdown):
        found.add(token.type)
        found |= {child.type for child in token.children or []}
    return found


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("shown", [harmless, literal])
def test_nothing_remote_and_no_html_survives(attack, shown):
    types = token_types(shown(attack))
    assert not types & {"image", "link_open", "html_inline", "html_block"}


@given(st.text(alphabet="ab![]()<>`\n:/*_$\\.#-h", max_size=80))
def test_no_spelling_of_an_image_or_link_gets_through(text):
    types = token_types(literal(text)) | token_types(harmless(text))
    assert not types & {"image", "html_inline", "html_block"}


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"]), max_size=80))
def test_literal_text_shows_as_it_is(text):
    tokens = MarkdownIt("commonmark").parse("x" + literal(text) + "x")
    shown = "".join(c.content for t in tokens for c in t.children or [])
    assert shown.replace(" ", "") == ("x" + text + "x").replace(" ", "")


def test_a_models_lists_tables_and_code_stay():
    text = "- **một**\n- hai\n\n```python\nprint('$x$ [1] ![i](u)')\n```"
    shown = harmless(text, {1})
    assert "- **một**" in shown
    assert "print('$x$ [1] ![i](u)')" in shown


def test_only_known_citations_become_badges():
    assert harmless("a [1] b [2]", {1}) == "a\N{NO-BREAK SPACE}:primary-badge[1] b [2]"


def test_citations_side_by_side_and_before_a_colon_are_citations_too():
    assert harmless("[1][2]: so", {1, 2}) == ":primary-badge[1]:primary-badge[2]: so"
    shown = harmless("![1](http://evil.example) [1](http://evil.example)", {1})
    assert not token_types(shown) & {"image", "link_open"}


def test_streamlits_own_directives_and_dollars_are_text():
    assert (
        harmless("giá $5 và $6 :red[đỏ] :material/home:")
        == r"giá \$5 và \$6 \:red[đỏ] \:material/home:"
    )


def links(markdown: str) -> list[dict]:
    return [
        child.attrs
        for token in MarkdownIt("commonmark").parse(markdown)
        for child in token.children or []
        if child.type == "link_open"
    ]


def test_a_hinted_sentence_shows_its_hint_and_leads_nowhere():
    text = "Đúng [1]. **Sai** là 5 % [2]. Hết."
    start, end = text.index("Sai"), text.index(" Hết")
    shown = harmless(text, {1, 2}, [(start, end, 'Số "5" không có\n[x](javascript:alert(1)) <b>')])
    assert links(shown) == [{"href": HINT, "title": 'Số "5" không có [x](javascript:alert(1)) <b>'}]
    assert " [**Sai** là 5 %" in shown
    assert ":primary-badge[2].](" in shown
    assert shown.endswith(" Hết.")


@pytest.mark.parametrize(
    "inside", ["a ] b.", "**a b.", "a `b.", "| a | b |", "a b\\", "[a b.", "^a b"]
)
def test_what_a_link_cannot_hold_stays_as_it_is(inside):
    assert harmless(inside, (), [(0, len(inside), "hint")]) == harmless(inside)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_gets_through_a_hint_or_a_hinted_sentence(attack):
    for shown in (
        harmless(attack, (), [(0, len(attack), "hint")]),
        harmless("A sentence. " + attack, (), [(0, 11, attack)]),
    ):
        assert not token_types(shown) & {"image", "html_inline", "html_block"}
        assert {link["href"] for link in links(shown)} <= {HINT}


@given(
    st.text(alphabet='ab ![]()<>`\n:/*_$\\.#-h"\ue000\ue001\ue010\ue011', max_size=60),
    st.lists(
        st.tuples(
            st.integers(0, 60), st.integers(0, 60), st.text(alphabet='a"\\)]<\n$`', max_size=9)
        ),
        max_size=3,
    ),
)
def test_no_hint_opens_a_way_in(text, hints):
    shown = harmless(text, {1}, hints)
    assert not token_types(shown) & {"image", "html_inline", "html_block"}
    assert {link["href"] for link in links(shown)} <= {HINT}
    assert len(links(shown)) <= len(hints)
