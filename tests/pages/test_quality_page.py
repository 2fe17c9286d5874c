"""The quality page as Streamlit runs it: from nothing to a figure, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatbot.evaluation.gold import Target
from chatbot.evaluation.runs import Configuration
from chatbot.services import Services
from chatbot.types import Source

RULES = {
    "Leave.txt": "Every employee has twenty-six days of paid leave in a calendar year.",
    "Hotel.txt": "Hotels are paid up to one hundred and forty pounds a night.",
    "Parking.txt": "The car park opens at six in the morning; tickets are sold at the gate.",
}


@pytest.fixture
def library(services: Services, tmp_path: Path):
    """Three short documents, read and indexed."""
    for name, text in RULES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    added = services.add_documents([tmp_path / name for name in RULES])
    services.wait_until_read(120)
    return {d.name: d for d in added}


@pytest.fixture
def questions(services: Services, library):
    """Two questions that are found and one that cannot be."""
    add = services.quality.questions.add
    add("how many days of leave", [Target(library["Leave.txt"].id)])
    add("price of a hotel night", [Target(library["Hotel.txt"].id)])
    add("how many days of paid leave", [Target(library["Parking.txt"].id)])


def shown(app) -> str:
    elements = (app.markdown, app.caption, app.info, app.success, app.warning, app.error)
    html = [block.proto.body for block in app.get("html")]
    return "\n".join([*(e.value for kind in elements for e in kind), *html])


def button(app, key: str):
    return next(b for b in app.button if b.key == key)


def questions_view(open_page, language: str = "en"):
    return open_page("quality.py", **{f"quality-view-{language}": "questions"})


def measured(services: Services, *modes: str) -> None:
    job = services.evaluate([Configuration(mode) for mode in modes or ("hybrid",)])
    assert services.jobs.wait(job.id, 60).state == "done"


@pytest.mark.parametrize(
    ("language", "title", "button_words"),
    [
        ("en", "Two minutes to your first figure", "Write the first question"),
        ("vi", "Hai phút để có con số đầu tiên", "Viết câu hỏi đầu tiên"),
    ],
)
def test_an_empty_page_teaches_in_the_language_of_the_person(
    open_page, services, language, title, button_words
):
    services.change_settings(language=language)
    app = open_page("quality.py")
    assert title in shown(app)
    assert button(app, "measure").disabled
    assert button(app, "write-first").label == button_words
    button(app, "write-first").click().run()
    assert not app.exception
    assert any(t.key.startswith("quality-text-") for t in app.text_input)


def test_a_question_is_written_and_its_passage_ticked(open_page, services, library):
    app = questions_view(open_page)
    app.text_input(key="quality-text-0").input("how much may a hotel cost").run()
    right = next(box for box in app.checkbox if "Hotel" in box.label)
    assert button(app, "save-question").disabled
    right.check().run()
    # Other words show other passages; what is ticked stays.
    app.text_input(key="quality-words-0").input("car park").run()
    assert [box.value for box in app.checkbox if "Hotel" in box.label] == [True]
    button(app, "save-question").click().run()
    assert not app.exception
    (question,) = services.quality.questions.all()
    assert question.text == "how much may a hotel cost"
    assert [gold.document_id for gold in question.golds] == [library["Hotel.txt"].id]
    assert "how much may a hotel cost" in shown(app)
    assert app.text_input(key="quality-text-1").value == ""


def test_a_measurement_shows_figures_caution_and_what_went_wrong(open_page, services, questions):
    app = open_page("quality.py")
    button(app, "measure").click().run()
    (job,) = services.jobs.list(kind="evaluate")
    assert services.jobs.wait(job.id, 60).state == "done"
    app.run()
    assert not app.exception
    said = shown(app)
    assert "The first result is right" in said
    assert "67 %" in said
    assert "3 questions prove little" in said
    assert "Where it went wrong" in [s.value for s in app.subheader]
    assert "how many days of paid leave" in said
    assert any(r"Came first: Leave\.txt" in b.label for b in app.button)
    (outcome,) = [
        o
        for o in services.quality.runs.outcomes(services.quality.runs.finished()[0].id)
        if o.rank != 1
    ]
    button(app, f"look-{outcome.question_id}").click().run()
    assert not app.exception
    assert "The car park opens" in shown(app)
    assert "twenty\\-six days" in shown(app)


@pytest.mark.parametrize(
    ("language", "verdict", "names"),
    [
        (
            "en",
            "Both find the right passage first for the same questions.",
            ("Words and meaning", "Words only"),
        ),
        (
            "vi",
            "Cả hai đều tìm đúng ngay kết quả đầu ở cùng những câu hỏi.",
            ("Theo từ và nghĩa", "Chỉ theo từ"),
        ),
    ],
)
def test_two_ways_of_searching_stand_side_by_side(
    open_page, services, questions, language, verdict, names
):
    measured(services, "hybrid", "lexical")
    services.change_settings(language=language)
    app = open_page("quality.py")
    said = shown(app)
    assert verdict in said
    assert said.index(names[0]) < said.index(names[1])  # what is in use comes first
    assert "MRR@10" in said
    comparing = next(s for s in app.selectbox if s.key.startswith("quality-other-"))
    comparing.set_value("").run()
    assert not app.exception
    assert verdict not in shown(app)


def test_a_clear_difference_is_said_in_a_sentence(open_page, services, questions, monkeypatch):
    from chatbot.evaluation.metrics import Difference
    from chatbot.evaluation.runs import Runs

    measured(services, "hybrid", "lexical")
    compare = Runs.compare

    def certain(self, first, second):
        found = compare(self, first, second)
        found.differences["recall@1"] = Difference(-0.031, -0.054, -0.008, certain=True)
        return found

    monkeypatch.setattr(Runs, "compare", certain)
    said = shown(open_page("quality.py"))
    assert "“Words only” finds the right passage first more often than “Words and meaning”" in said
    assert "by 3.1 points (0.8 to 5.4)" in said


def test_earlier_measurements_are_looked_at_and_deleted(open_page, services, questions):
    measured(services)
    measured(services, "lexical")
    first, second = (run.id for run in services.quality.runs.finished())
    app = open_page("quality.py")
    button(app, f"show-run-{second}").click().run()
    assert app.session_state["quality-run"] == second
    button(app, f"delete-run-{second}").click().run()
    assert not app.exception
    assert [run.id for run in services.quality.runs.finished()] == [first]


def test_a_folder_that_is_none_is_said(open_page, services):
    app = open_page("quality.py", **{"quality-set-en": "folder"})
    app.text_input(key="quality-folder").input("/no/where").run()
    button(app, "measure").click().run()
    assert "Not found" in app.error[0].value
    assert services.jobs.list(kind="evaluate") == []


def test_suggestions_are_reviewed_before_they_count(open_page, services, library):
    passage = services.store.contents.passages(library["Hotel.txt"].id)[0]
    from chatbot.types import Source

    source = Source(1, passage.id, passage.document_id, "Hotel.txt", None, "", passage.text, 0.9)
    history = services.history
    conversation = history.create()
    for text in ("what may a hotel cost", "and abroad?"):
        asked = history.add(conversation.id, None, "user", text)
        reply = history.add(conversation.id, asked.id, "assistant", "£140 [1]", sources=(source,))
        history.judge(reply.id, thumb=1)
    app = open_page("quality.py")
    assert "2 questions from your conversations wait" in shown(app)
    app = questions_view(open_page)
    app.text_input(key=f"asked-{reply.id}").input("what may a hotel cost abroad").run()
    button(app, f"take-{reply.id}").click().run()
    (question,) = services.quality.questions.all()
    assert (question.text, question.origin) == ("what may a hotel cost abroad", "gathered")
    left = next(b for b in app.button if (b.key or "").startswith("dismiss-"))
    left.click().run()
    assert not app.exception
    assert services.suggested_questions() == []
    assert len(services.quality.questions.all()) == 1


def test_a_question_is_edited_and_deleted(open_page, services, library, questions):
    hotel = next(q for q in services.quality.questions.all() if "hotel" in q.text)
    app = questions_view(open_page)
    app.menu_button(key=f"menu-{hotel.id}").click("edit").run()
    assert app.text_input(key="quality-text-1").value == hotel.text
    assert [box.value for box in app.checkbox if "Hotel" in box.label] == [True]
    app.text_input(key="quality-text-1").input("what does a night cost").run()
    button(app, "save-question").click().run()
    assert not app.exception
    changed = next(q for q in services.quality.questions.all() if "night cost" in q.text)
    assert len(services.quality.questions.all()) == 3
    app.menu_button(key=f"menu-{changed.id}").click("delete").run()
    assert len(services.quality.questions.all()) == 2


def test_a_question_without_its_document_is_said(open_page, services, library, questions):
    services.ingest.purge(library["Hotel.txt"].id)
    assert r"Not asked: its passage is no longer in “Hotel\.txt”" in shown(
        questions_view(open_page)
    )


def test_the_sample_questions_fit_the_sample_documents(open_page, services):
    from chatbot.settings import SAMPLES

    services.add_documents([SAMPLES], collection="samples")
    services.wait_until_read(150)
    app = open_page("quality.py")
    button(app, "sample-questions").click().run()
    assert not app.exception
    assert len(services.quality.questions.all()) == 18
    assert app.session_state["quality-bad"] == ()
    assert len(services.quality.questions.cases()[0]) == 18


def test_a_citation_opened_in_the_chat_is_suggested(open_page, services, library):
    passage = services.store.contents.passages(library["Hotel.txt"].id)[0]
    source = Source(1, passage.id, passage.document_id, "Hotel.txt", None, "", passage.text, 0.9)
    for history, text in ((services.history, "hotel price"), (services.incognito, "secret")):
        conversation = history.create()
        asked = history.add(conversation.id, None, "user", text)
        reply = history.add(conversation.id, asked.id, "assistant", "£140 [1]", sources=(source,))
        app = open_page(conversation=conversation.id)
        button(app, f"open-source-{reply.id}-1").click().run()
        assert not app.exception
    assert [s.approved.question for s in services.suggested_questions()] == ["hotel price"]
