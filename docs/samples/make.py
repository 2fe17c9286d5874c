# ruff: noqa: INP001, T201 (a script that is run by hand and says what it made)
"""Makes the sample documents in data/samples/ from the texts beside this file.

    python docs/samples/make.py [CHROMIUM]

The regulation becomes a PDF (printed by Chromium, fonts embedded, real page numbers), the handbook a Word
document with real heading styles. Run it again after changing a text.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent.parent / "data" / "samples"

STYLE = """
@page { size: A4; margin: 22mm 20mm 20mm 28mm;
  @bottom-center { content: counter(page); font: 11pt 'Liberation Serif'; } }
body { font: 13pt/1.38 'Liberation Serif', serif; text-align: justify; }
h1 { font-size: 15pt; text-align: center; margin: 14pt 0 4pt; }
h2 { font-size: 13pt; text-align: center; margin: 0; break-after: avoid; }
h2.first { margin-top: 14pt; }
h3 { font-size: 13pt; margin: 9pt 0 3pt; text-indent: 10mm; break-after: avoid; }
p { margin: 0 0 4pt; text-indent: 10mm; orphans: 2; widows: 2; }
p.note { padding: 0 12mm; text-align: center; text-indent: 0; font-style: italic; margin-bottom: 10pt; }
table { font-size: 12pt; width: 100%; border-collapse: collapse; margin-bottom: 8pt; }
td { text-align: center; vertical-align: top; white-space: nowrap; }
.signature { width: 55%; margin: 14pt 0 0 45%; text-align: center; break-inside: avoid; }
.signature p { text-indent: 0; }
"""

HEAD = """<table><tr><td>BỘ GIÁO DỤC VÀ ĐÀO TẠO<br><b>ĐẠI HỌC SÔNG HỒNG</b></td>
<td><b>CỘNG HÒA XÃ HỘI CHỦ NGHĨA VIỆT NAM</b><br><b>Độc lập - Tự do - Hạnh phúc</b></td></tr></table>"""
SIGNATURE = """<div class="signature"><p><b>HIỆU TRƯỞNG</b></p><p><i>(Đã ký)</i></p>
<p><b>GS.TS. Trần Minh Hà</b></p></div>"""


def make_regulation(chromium: str) -> Path:
    """data/samples/Quy chế đào tạo.pdf"""
    blocks = []
    before = ""
    for line in (HERE / "quy-che-dao-tao.md").read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        text = html.escape(line.strip("#* ").strip(), quote=False)
        if line.startswith("# "):
            blocks.append(f"<h1>{text}</h1>")
        elif line.startswith("## "):
            first = "" if before.startswith("## ") else ' class="first"'
            blocks.append(f"<h2{first}>{text}</h2>")
        elif line.startswith("### "):
            blocks.append(f"<h3>{text}</h3>")
        elif line.startswith("*"):
            blocks.append(f'<p class="note">{text}</p>')
        else:
            blocks.append(f"<p>{text}</p>")
        before = line
    page = (
        '<!doctype html><html lang="vi"><meta charset="utf-8">'
        f"<title>Quy chế đào tạo trình độ đại học</title><style>{STYLE}</style>"
        f"<body>{HEAD}{''.join(blocks)}{SIGNATURE}</body></html>"
    )
    target = SAMPLES / "Quy chế đào tạo.pdf"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "page.html")
        source.write_text(page, encoding="utf-8")
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
             f"--print-to-pdf={target}", source.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    return target


def make_handbook() -> Path:
    """data/samples/Employee Handbook.docx"""
    import docx

    document = docx.Document()
    document.core_properties.title = "Employee Handbook"
    document.core_properties.author = "Lantern Works Ltd."
    for line in (HERE / "employee-handbook.md").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("# "):
            document.add_heading(text[2:], 0)
        elif text.startswith("## "):
            document.add_heading(text[3:], 1)
        elif text.startswith("*"):
            document.add_paragraph().add_run(text.strip("*")).italic = True
        elif text:
            _add_clause(document.add_paragraph(), text)
    target = SAMPLES / "Employee Handbook.docx"
    document.save(str(target))
    return target


def _add_clause(paragraph: object, text: str) -> None:
    """A clause with its number and short title in bold: '3.3 Overtime. …'."""
    match = re.match(r"(\d+\.\d+ (?:[A-Z][^.]{2,40}\. )?)(.*)", text)
    assert match, text
    paragraph.add_run(match[1]).bold = True  # type: ignore[attr-defined]
    paragraph.add_run(match[2])  # type: ignore[attr-defined]


if __name__ == "__main__":
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for made in (
        make_regulation(sys.argv[1] if len(sys.argv) > 1 else "chromium"),
        make_handbook(),
    ):
        print(made, made.stat().st_size)
