"""Evaluations of one's own questions through the real index: asked, kept, taken up again, compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chatbot import services as rooms
from chatbot.errors import Cancelled, ModelError, NotFoundError, SettingsError
from chatbot.evaluation.gold import Target
from chatbot.evaluation.quality import Live, Quality
from chatbot.evaluation.runs import Configuration, Outcome, Place
from chatbot.settings import Settings, save_settings
from tests.evaluation.test_retrieval import folder

__all__ = ["folder"]

TEXTS = {
    "Học phí.txt": "Sinh viên nộp học phí trong vòng bốn tuần kể từ ngày học kỳ bắt đầu.",
    "Thư viện.txt": "Thẻ thư viện có hạn một năm kể từ ngày cấp.",
    "Ký túc xá.txt": "Ký túc xá đóng cửa lúc mười một giờ đêm.",
    "Bãi xe.txt": "Bãi gửi xe mở cửa từ sáu giờ sáng, vé tháng mua tại cổng chính.",
}
ASKED = {
    "Học phí.txt": "nop hoc phi trong bao lau",
    "Thư viện.txt": "thẻ thư viện hạn mấy năm",
    "Ký túc xá.txt": "mấy giờ ký túc xá đóng cửa",
    "Bãi xe.txt": "thẻ thư viện có hạn bao lâu",  # the wrong document on purpose
}


@pytest.fixture
def asked(quality: Quality, add, index) -> Quality:
    """Four documents, four questions; one of them has a document as its answer that does not answer."""
    documents = {name: add(name, text) for name, text in TEXTS.items()}
    index.add([d.id for d in documents.values()])
    for name, text in ASKED.items():
        quality.questions.add(text, [Target(documents[name].id, 0, len(TEXTS[name]))])
    return quality


def test_a_run_asks_every_question_and_keeps_where_its_answer_ranked(asked):
    first, second = asked.begin([Configuration("hybrid"), Configuration("lexical")])
    reports: list[float | None] = []
    asked.work([first, second], lambda progress, _message: reports.append(progress))
    run = asked.runs.get(first)
    assert run.figures["recall@1"] == 0.75
    assert run.figures["questions"] == run.questions == 4
    assert run.figures["latency_p50_ms"] > 0
    assert "hearth-surface@" in run.embedder
    shares = [r for r in reports if r is not None]
    assert shares == sorted(shares)
    assert 0 < max(shares) < 1
    (lost,) = [o for o in asked.runs.outcomes(first) if o.rank != 1]
    assert lost.text == ASKED["Bãi xe.txt"]
    assert lost.first is not None
    assert asked.runs.compare(first, second).differences["recall@1"].mean == 0.0
    assert [r.id for r in asked.runs.finished()] == [second, first]


def test_a_run_is_taken_up_where_it_ended(asked, database, store, paths, index, monkeypatch):
    monkeypatch.setattr("chatbot.evaluation.quality._WRITTEN_EVERY", 0.0)
    (run_id,) = asked.begin([Configuration()])

    def cancel_at_half(progress: float | None, _message: str) -> None:
        if progress and progress >= 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        asked.work([run_id], cancel_at_half)
    assert asked.runs.finished() == []
    kept = {o.question_id: o.seconds for o in asked.runs.outcomes(run_id)}
    assert len(kept) == 2
    other = Quality(database, store, paths.temporary, asked._live)
    other.work([run_id], lambda *_: None)
    outcomes = {o.question_id: o.seconds for o in other.runs.outcomes(run_id)}
    assert len(outcomes) == 4
    assert kept.items() <= outcomes.items()  # nobody asked those again
    assert other.runs.get(run_id).figures["recall@1"] == 0.75


def test_another_embedder_on_the_way_begins_anew(asked, index):
    class Elsewhere:
        """The same index behind another object, as after the settings page exchanged it."""

        def __getattr__(self, name: str) -> object:
            return getattr(index, name)

    (run_id,) = asked.begin([Configuration()])
    lives = [asked._live(), dataclasses.replace(asked._live(), index=Elsewhere())]
    asks = []
    asked._live = lambda: lives[min(len(asks) // 2, 1)]
    asked.work([run_id], lambda *_: asks.append(1))
    assert len(asked.runs.outcomes(run_id)) == 4


def test_nothing_to_ask_is_said(quality, tmp_path):
    with pytest.raises(NotFoundError):
        quality.begin([Configuration()])
    with pytest.raises(NotFoundError):
        quality.begin([Configuration()], tmp_path / "nowhere")
    assert quality.runs.finished() == []


def test_a_beir_folder_gets_an_index_of_its_own(quality, folder, store):
    runs = quality.begin([Configuration("hybrid"), Configuration("lexical")], folder)
    heard: set[str] = set()
    quality.work(runs, lambda _progress, message: heard.add(message))
    assert heard == {"Indexing the texts", "Asking the questions"}
    run = quality.runs.get(runs[0])
    assert (run.dataset, run.questions) == (str(folder), 2)
    assert run.figures["recall@1"] == 1.0
    assert store.list() == []
    assert list(Path(quality._temporary).iterdir()) == []
    assert quality.runs.finished(dataset="") == []
    (folder / "queries.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(SettingsError):
        quality.begin([Configuration()], folder)


def test_reranking_without_a_reranker_is_told_as_what_it_is(asked):
    (run_id,) = asked.begin([Configuration("hybrid", rerank=True)])
    with pytest.raises(ModelError):
        asked.work([run_id], lambda *_: None)
    assert asked.runs.finished() == []


def outcome(question: str, ranks: tuple[int, ...], golds: int = 1) -> Outcome:
    return Outcome(question, f"{question}?", golds, ranks, 0.01, Place("d", "d-0", 0))


def test_two_runs_are_compared_over_the_questions_both_asked(quality):
    first, second = (quality.runs.create("", Configuration(), 9) for _ in range(2))
    for number in range(8):
        quality.runs.record([(first, outcome(f"q{number}", (1,)))])
        quality.runs.record([(second, outcome(f"q{number}", (3,) if number else (1,)))])
    quality.runs.record([(first, outcome("only", ()))])
    quality.runs.record([(first, outcome("edited", (1,), 2)), (second, outcome("edited", (1,)))])
    for run in (first, second):
        quality.runs.finish(run)
    found = quality.runs.compare(first, second)
    assert len(found.pairs) == 8
    gained = found.differences["recall@1"]
    assert (gained.mean, gained.certain) == (0.875, True)
    assert 0 < gained.low <= gained.mean <= gained.high <= 1
    assert found.differences["recall@5"].mean == 0.0
    assert not found.differences["recall@5"].certain
    assert quality.runs.compare(second, first).differences["mrr@10"].mean < 0


def test_a_deleted_question_leaves_figures_and_no_words(asked, database):
    (run_id,) = asked.begin([Configuration()])
    asked.work([run_id], lambda *_: None)
    figures = asked.runs.get(run_id).figures
    asked.questions.remove(*(q.id for q in asked.questions.all()))
    assert asked.runs.get(run_id).figures == figures
    assert {o.text for o in asked.runs.outcomes(run_id)} == {""}
    asked.purge()
    assert asked.runs.finished() == []
    assert database.rows("SELECT * FROM outcomes") == []


# --- as a job -------------------------------------------------------------------------------


def test_an_evaluation_survives_the_end_of_hearth(paths, tmp_path):
    save_settings(paths.settings, Settings(samples_added=True))
    services = rooms.open_services(paths)
    try:
        for name, text in TEXTS.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        added = services.add_documents([tmp_path / name for name in TEXTS])
        services.wait_until_read(120)
        for document in added:
            target = Target(document.id)
            services.quality.questions.add(ASKED[document.name], [target])
        job = services.evaluate([Configuration("hybrid"), Configuration("lexical")])
        rooms.close_services()  # at once: the job has hardly begun

        services = rooms.open_services(paths)
        assert services.jobs.wait(job.id, 120).state == "done"
        runs = services.quality.runs.finished()
        assert {run.configuration.mode for run in runs} == {"hybrid", "lexical"}
        assert all(run.figures["questions"] == 4 for run in runs)
        services.delete_everything()
        assert services.quality.runs.finished() == []
        assert services.quality.questions.all() == []
    finally:
        rooms.close_services()


def test_live_is_what_the_person_searches_with(paths):
    save_settings(paths.settings, Settings(samples_added=True))
    services = rooms.open_services(paths)
    try:
        live = services.quality._live()
        settings = services.settings
        assert live == Live(services.search, services.index, settings.embedder, settings.reranker)
    finally:
        rooms.close_services()
