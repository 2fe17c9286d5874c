"""Start to first usable page: `python benchmarks/startup.py [rounds]`.

A is a one-line Streamlit app until its text is visible; B is Hearth on a data folder that has been
used before, until the chat input is visible, both in a real Chromium that is already open. The two
are alternated; medians. Target: B ≤ 1.5 × A.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
TARGET = 1.5
ONE_LINE = 'import streamlit as st; st.write("Ready to use")\n'
CHAT_INPUT = "[data-testid=stChatInput] textarea"
WITHIN = 120.0


def usable_after(
    browser: Browser, script: Path, selector: str, environment: dict[str, str]
) -> float:
    """Seconds from starting the server to seeing that element; the server is ended after."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    options = ["--server.port", str(port), "--server.headless", "true"]
    page = browser.new_page()
    start = time.perf_counter()
    server = subprocess.Popen(
        [*command, *options],
        cwd=script.parent,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, start)
        page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
        page.locator(selector).first.wait_for(state="visible", timeout=WITHIN * 1000)
        return time.perf_counter() - start
    finally:
        page.close()
        server.terminate()
        server.wait(30)


def wait_for(port: int, start: float) -> None:
    """Return when the server answers."""
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
        except OSError:
            if time.perf_counter() - start > WITHIN:
                raise
            time.sleep(0.02)
        else:
            return


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(rounds: int) -> int:
    browser_file = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        (folder / "one_line.py").write_text(ONE_LINE, encoding="utf-8")
        ways = {
            "one-line Streamlit app": (folder / "one_line.py", "text=Ready to use"),
            "Hearth": (PROJECT / "app.py", CHAT_INPUT),
        }
        environment = {"HEARTH_DATA": str(folder / "data"), "HEARTH_OFFLINE": "1"}
        browser = playwright.chromium.launch(executable_path=browser_file, args=["--no-sandbox"])
        for script, selector in ways.values():  # first start: samples, byte code, file cache
            usable_after(browser, script, selector, environment)
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (script, selector) in ways.items():
                taken[name].append(usable_after(browser, script, selector, environment))
        browser.close()
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, value in medians.items():
        spread = f"{min(taken[name]):.2f} … {max(taken[name]):.2f}"
        print(f"{name:24} {value:.2f} s (median of {rounds}; {spread})")
    theirs, ours = medians.values()
    print(f"{'ratio':24} {ours / theirs:.2f} (target ≤ {TARGET})")
    return 0 if ours / theirs <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))
