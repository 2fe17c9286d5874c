"""Search: candidates in, ordered passages with their evidence out."""

from dataclasses import dataclass, field

import pytest

from chatbot.library.index import Candidates, Hit, Index
from chatbot.retrieval.search import CANDIDATES, Search
from chatbot.types import Passage, SearchFilter
from tests.library.index_data import LAWS, many, put


@dataclass
class Shelf:
    """An index that says what it is told to."""

    hits: tuple[Hit, ...]
    weights: dict[str, float] = field(default_factory=lambda: {"hoc": 1.0, "vu": 1.0})
    dense_weight: float = 0.0
    gone: tuple[str, ...] = ()
    asked: list = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    pointers: tuple[tuple[str, str], ...] = ()
    other: dict[str, float] = field(default_factory=dict)

    def query(self, text, limit, filter, mode):  # noqa: A002
        self.asked.append((text, limit, filter, mode))
        return Candidates(self.hits, self.weights, self.dense_weight, other=self.other)

    def passages(self, ids):
        return {
            i: (
                Passage(i, i[0], int(i[1:]), self.texts.get(i, f"học vụ {i}"), 0, 8, None, ""),
                f"{i[0]}.txt",
            )
            for i in ids
            if i not in self.gone
        }

    def referred(self, passages):
        given = [passage.id for passage in passages]
        return [pointer for pointer in self.pointers if pointer[0] in given]


def hits(*scored):
    return tuple(Hit(i, s, None, n, None) for n, (i, s) in enumerate(scored, 1))


def ids(found):
    return [result.passage.id for result in found.results]


def test_best_first_as_many_as_asked_scores_falling_between_0_and_1():
    found = Search(Shelf(hits(("a1", 3.0), ("b1", 9.0), ("c1", 5.0)))).find("học vụ", limit=2)
    assert ids(found) == ["b1", "c1"]
    assert 1 >= found.results[0].score > found.results[1].score > 0
    assert found.results[0].document == "b.txt"
    assert found.strength == found.results[0].score


def test_of_a_pasted_page_the_start_and_the_end_are_looked_up():
    shelf = Shelf(hits(("a1", 3.0)))
    Search(shelf).find("học vụ " + "x " * 10_000 + "điều 12?")
    Search(shelf).find("y" * 4000)
    (page, *_), (short, *_) = shelf.asked
    assert len(page) == 4000
    assert page.startswith("học vụ x")
    assert page.endswith("x điều 12?")
    assert short == "y" * 4000


def test_equal_scores_stand_in_the_documents_order_every_time():
    scored = [("b2", 5.0), ("a3", 5.0), ("b1", 5.0), ("a1", 5.0)]
    for order in (scored, scored[::-1]):
        assert ids(Search(Shelf(hits(*order))).find("học vụ", limit=3)) == ["a1", "a3", "b1"]


def test_what_was_cut_anew_while_it_was_found_is_found_again():
    class CutAnew(Shelf):
        def query(self, text, limit, filter, mode):  # noqa: A002
            found = super().query(text, limit, filter, mode)
            self.hits = hits(("b1", 9.0), ("b2", 5.0))
            return found

    shelf = CutAnew(hits(("a1", 9.0), ("a2", 5.0)), gone=("a1", "a2"))
    found = Search(shelf).find("học vụ")
    assert [result.passage.id for result in found.results] == ["b1", "b2"]
    assert len(shelf.asked) == 2


def test_a_passage_that_is_gone_by_now_is_left_out_and_the_next_moves_up():
    found = Search(Shelf(hits(("a1", 9.0), ("b1", 5.0), ("c1", 4.0)), gone=("a1",))).find(
        "học vụ", limit=2
    )
    assert ids(found) == ["b1", "c1"]


def test_nothing_found_is_an_answer_too():
    found = Search(Shelf((), other={"annual": 1.0})).find("nghỉ phép năm")
    assert found.results == ()
    assert not found.answers


def test_filter_and_mode_reach_the_index():
    shelf = Shelf(())
    chosen = SearchFilter(collections=("a",))
    found = Search(shelf).find("học vụ", chosen, 3, "lexical")
    assert shelf.asked == [("học vụ", CANDIDATES, chosen, "lexical")]
    assert (found.results, found.strength, found.answers) == ((), 0.0, False)


def test_results_without_a_shared_word_keep_their_order_by_score():
    dense_only = tuple(Hit(f"a{n}", None, 1 - n / 10, None, n) for n in (1, 2, 3))
    found = Search(Shelf(dense_only, {"xyz": 2.0}, 0.5)).find("xyz")
    assert ids(found) == ["a1", "a2", "a3"]
    assert found.results[0].score > found.results[1].score > 0
    assert not found.answers


def test_what_only_repeats_another_goes_behind_the_first_eight():
    text = (
        "Sinh viên bị cảnh báo học vụ khi điểm trung bình học kỳ dưới một phẩy không theo quy chế"
    )
    texts = {"a1": text, "b1": f"{text}.", "c1": text.replace("một", "hai"), "d1": f"{text} 2"}
    texts |= {f"e{n}": f"học vụ loại {n}" for n in range(5)}
    scored = [(i, 20.0 - n) for n, i in enumerate(texts)]
    found = ids(Search(Shelf(hits(*scored), texts=texts)).find("học vụ", limit=16))
    assert found.index("a1") == 0
    assert found.index("b1") == 8  # the same words
    assert {"c1", "d1"} <= {*found[:8]}  # another word, another figure
    scores = [r.score for r in Search(Shelf(hits(*scored), texts=texts)).find("học vụ").results]
    assert scores == sorted(scores, reverse=True)


def test_articles_that_results_point_to_come_behind_and_displace_nothing():
    shelf = Shelf(
        hits(("a1", 9.0), ("b1", 5.0)), pointers=(("a1", "b1"), ("a1", "z7"), ("b1", "z8"))
    )
    search = Search(shelf)
    found = search.find("học vụ")
    behind = search.referred(found.results)
    assert ids(found) == ["a1", "b1"]
    assert [(r.passage.id, r.referred_by) for r in behind] == [("z7", "a1"), ("z8", "b1")]
    assert max(r.score for r in behind) < found.results[-1].score
    assert search.referred(()) == ()


@pytest.fixture
def search(database, paths):
    put(database, LAWS | many(30))
    index = Index(database, paths.index, "hearth-surface", "1")
    assert index.wait_ready(60)
    yield Search(index)
    index.close()


def test_the_real_index_answers_what_is_there_and_doubts_what_is_not(search):
    there = search.find("sinh viên bị cảnh báo học vụ khi nào")
    assert there.results[0].passage.id == "hoc-vu:0"
    assert there.answers
    assert there.results[0].lexical_rank == 1
    for elsewhere in ("thuế thu nhập cá nhân khi bán nhà đất", "giá vé máy bay đi Đà Nẵng"):
        assert not search.find(elsewhere).answers
    assert search.find("sinh vien bi canh bao hoc vu khi nao").results[0].passage.id == "hoc-vu:0"


def test_a_question_with_typing_errors_in_every_word_still_finds(search):
    assert search.find("cahnh bóa hocj vuj sihn vieen").results[0].passage.id == "hoc-vu:0"


def test_a_question_that_names_an_article_goes_straight_there(database, paths):
    put(
        database,
        {
            "Bộ luật Lao động": "Chương III › Điều 35. Đơn phương|Nội dung ngắn.\n\nĐiều 36. Khác|Điều 35 Bộ luật "
            "Lao động, Điều 35 Bộ luật Lao động, Bộ luật Lao động.",
            "Luật Cư trú": "Chương I › Điều 35. Hiệu lực|Bộ luật Lao động và Điều 35 được nhắc ở đây.",
        },
    )
    index = Index(database, paths.index, "hearth-surface", "1")
    try:
        assert index.wait_ready(60)
        for question in (
            "Điều 35 Bộ luật Lao động",
            "dieu 35 blld",
            "điều 35 của bộ luật lao động",
        ):
            found = Search(index).find(question)
            assert found.results[0].passage.id == "Bộ luật Lao động:0"
            assert found.answers
    finally:
        index.close()


def test_typing_errors_are_put_right_and_said(search):
    found = search.find("sinh vien bi canh bao hco vu")
    assert found.results[0].passage.id == "hoc-vu:0"
    assert found.question == "sinh vien bi canh bao hoc vu"
    assert search.find("sinh viên bị cảnh báo học vụ").question == ""
