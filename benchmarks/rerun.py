"""How long the chat page takes to draw itself again with a 200-message history. Target: ≤ 0.3 s.

    python benchmarks/rerun.py [--messages 200] [--runs 9]

Runs the real page script through Streamlit's AppTest on a data folder of its own; the first run, which
imports, is left out. Prints the median and the worst.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEARTH_DATA"] = folder
        from streamlit.testing.v1 import AppTest

        from chatbot.services import close_services, services
        from chatbot.types import GenerationStats, Source

        services().change_settings(first_run_done=True, language="en")
        history = services().history
        conversation = history.create()
        parent = None
        for number in range(arguments.messages // 2):
            asked = history.add(conversation.id, parent, "user", f"Question {number}? " * 5)
            sources = tuple(
                Source(n, f"p{n}", "d", "handbook.docx", n, "Chapter 1 › 2.3", "text " * 150, 0.5)
                for n in range(1, 5)
            )
            parent = history.add(
                conversation.id, asked.id, "assistant", "An answer with citations [1] and [2]. " * 20,
                sources=sources, stats=GenerationStats(100, 0, 80, 0.4, 2.0, 40.0, 4096),
                engine="llama_cpp", model="model",
            ).id  # fmt: skip
        app = AppTest.from_file(str(PROJECT / "pages" / "main.py"), default_timeout=60)
        app.session_state["conversation"] = conversation.id
        app.run()
        assert not app.exception, app.exception
        drawn = len(app.chat_message)
        taken = []
        for _ in range(arguments.runs):
            began = time.perf_counter()
            app.run()
            taken.append(time.perf_counter() - began)
        close_services()
    print(f"{arguments.messages} messages in the history, the latest {drawn} drawn")
    print(
        f"rerun: median {statistics.median(taken):.3f} s, worst {max(taken):.3f} s (target 0.3 s)"
    )


if __name__ == "__main__":
    main()
