"""Follow-ups about the two sample documents: is the right article found when the question alone does not name it?

    python -m benchmarks.follow_ups

Forty pairs of questions written by hand, Vietnamese and English, some without marks. Each follow-up is
searched in three ways: as it is typed, joined to the question before it, and as Hearth rewrites it by its
rules. Counts whether the article that answers comes first, and among the first three. Prints one JSON object.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from chatbot.chat.follow_up import standalone
from chatbot.evaluation.metrics import interval
from chatbot.services import close_services, open_services
from chatbot.settings import Paths
from chatbot.types import Message

WARNED = "Sinh viên bị cảnh báo học vụ khi nào?"
CREDITS = "Sinh viên học lực bình thường được đăng ký tối đa bao nhiêu tín chỉ?"
FEES = "Sinh viên nộp học phí khi nào?"
LEAVE = "How many days of annual leave do I get?"
NOTICE = "How long is the notice period when I leave?"

# (the question before, the follow-up, the article or chapter that answers it)
PAIRS = [
    (WARNED, "Thế còn bị buộc thôi học?", "Điều 18"),
    (WARNED, "Làm sao để xóa cảnh báo đó?", "Điều 17"),
    (WARNED, "the con bi buoc thoi hoc thi sao", "Điều 18"),
    (WARNED, "Còn khoản 2?", "Điều 16"),
    (WARNED, "Khoản 3 nói gì?", "Điều 16"),
    (WARNED, "Tại sao vậy?", "Điều 16"),
    (WARNED, "Trường hợp này được xử lý thế nào?", "Điều 17"),
    (CREDITS, "Còn sinh viên đang bị cảnh báo học vụ?", "Điều 6"),
    (CREDITS, "Tối thiểu thì sao?", "Điều 6"),
    (CREDITS, "toi thieu thi sao", "Điều 6"),
    (CREDITS, "Còn học kỳ phụ?", "Điều 6"),
    (CREDITS, "Nếu muốn rút bớt thì sao?", "Điều 7"),
    (FEES, "Nếu nộp muộn thì sao?", "Điều 24"),
    (FEES, "Nộp muộn thì bị xử lý thế nào?", "Điều 24"),
    (FEES, "Ai được giảm khoản này?", "Điều 25"),
    (FEES, "Còn gia hạn?", "Điều 24"),
    ("Điều 19 quy định gì?", "Còn Điều 20?", "Điều 20"),
    ("Khoản 1 Điều 26 quy định gì?", "Còn khoản 2 thì sao?", "Điều 26"),
    ("Điều kiện xét tốt nghiệp là gì?", "Còn hạng giỏi?", "Điều 22"),
    ("Sinh viên được thi lại không?", "Còn học cải thiện?", "Điều 8"),
    ("Nghỉ học có phép thì làm thế nào?", "Còn nghỉ tạm thời?", "Điều 10"),
    ("Phúc khảo nộp đơn trong bao lâu?", "Khi nào có kết quả việc đó?", "Điều 13"),
    ("Học bổng xét theo tiêu chí nào?", "Còn ký túc xá?", "Điều 27"),
    ("Thi hộ bị kỷ luật thế nào?", "Còn mang tài liệu vào phòng thi?", "Điều 28"),
    ("Thi hộ bị kỷ luật thế nào?", "Họ có được khiếu nại không?", "Điều 30"),
    (LEAVE, "And part-time employees?", "5."),
    (LEAVE, "Can I carry it over?", "5."),
    (LEAVE, "What about sickness?", "6."),
    (LEAVE, "And for a child who is ill?", "6."),
    (LEAVE, "Why?", "5."),
    (LEAVE, "Who approves it?", "5."),
    (NOTICE, "And during probation?", "13."),
    (NOTICE, "What about the laptop?", "13."),
    (NOTICE, "Is that paid?", "13."),
    (NOTICE, "But what if I am dismissed?", "12."),
    ("How many days may I work remotely?", "And from abroad?", "4."),
    ("How many days may I work remotely?", "Who pays for it?", "4."),
    ("When are salaries paid?", "What about expenses?", "7."),
    ("What are the working hours?", "And overtime?", "3."),
    ("May I use my own laptop?", "How about passwords?", "9."),
]


def main() -> None:
    """Ask all pairs in the three ways and print the shares."""
    hits: dict[str, list[list[bool]]] = {"as typed": [], "joined": [], "rewritten": []}
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        services = open_services(Paths(Path(folder)))
        try:
            services.wait_until_read()
            for earlier, question, wanted in PAIRS:
                rewritten = standalone(question, [Message("q", "c", None, "user", earlier, 0)])
                ways = {"as typed": question, "joined": f"{earlier} {question}", "rewritten": rewritten}  # fmt: skip
                for way, asked in ways.items():
                    paths = [r.passage.path for r in services.search.find(asked, limit=3).results]
                    there = [_lies_in(wanted, path) for path in paths]
                    hits[way].append([any(there[:1]), any(there)])
                    if way == "rewritten" and not any(there[:1]):
                        missed.append([question, rewritten, paths[0]])
        finally:
            close_services()
    print(
        json.dumps(
            {
                way: {
                    name: {
                        "mean": round(sum(row[at] for row in rows) / len(rows), 3),
                        "interval": [round(end, 3) for end in interval([row[at] for row in rows])],
                    }
                    for at, name in enumerate(("first", "first three"))
                }
                for way, rows in hits.items()
            }
            | {"pairs": len(PAIRS), "not first when rewritten": missed},
            ensure_ascii=False,
            indent=1,
        )
    )


def _lies_in(wanted: str, path: str) -> bool:
    heading = wanted if wanted.endswith(".") else f"{wanted}."
    return any(part.startswith(heading) for part in path.split(" › "))


if __name__ == "__main__":
    main()
