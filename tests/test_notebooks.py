"""The notebooks of the documentation run, and what they store is what they print."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], 4)
where = {"metadata": {"path": sys.argv[2]}}
NotebookClient(book, timeout=240, kernel_name="python3", resources=where).execute()
nbformat.write(book, sys.argv[2] + "/out.ipynb")
"""


def cells(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


def printed(cell):
    """What a cell has printed, without numbers, which differ between machines."""
    texts = ["".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream"]
    return re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", "".join(texts))


def test_there_are_three_and_they_are_small():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert path.stat().st_size < 60_000
        for cell in cells(path):
            assert cell["execution_count"] is not None
            assert all(o["output_type"] != "error" for o in cell["outputs"])


@pytest.mark.medium
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_run_and_print_what_is_stored(path, tmp_path, monkeypatch):
    """In this process, which takes no kernel; the slow test takes one."""
    pytest.importorskip("IPython")
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in cells(path):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        out = StringIO()
        with redirect_stdout(out):
            exec(compile(tree, path.name, "exec"), names)
            shown = None
            if last is not None:
                shown = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
        told = re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", out.getvalue())
        assert told == printed(cell)
        stored = any("text/html" in o.get("data", {}) for o in cell["outputs"])
        assert stored == hasattr(shown, "_repr_html_")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_kernel_runs_the_notebook(path, tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    words = [sys.executable, "-W", "ignore", "-c", EXECUTE, str(path), str(tmp_path)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    for before, now in zip(cells(path), cells(tmp_path / "out.ipynb"), strict=True):
        assert printed(now) == printed(before)
