"""The page for people of a run, beside its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from identify.command.output import replacing
from identify.command.page import PAGE, REPORT
from identify.markup import sheet
from identify.report.page.content import Picture
from identify.report.page.render import render
from identify.report.page.runs import attack_page

_SHOWN = 100


def write_run_page(
    folder: Path,
    text: str,
    images: Mapping[str, npt.NDArray[Any]],
    evaluation: Mapping[str, Any] | None = None,
) -> None:
    """Write report.html into the folder of a run; ``images`` by what they are, channels last."""
    pictures = []
    for name, part in images.items():
        if len(part) and np.isfinite(part).all():
            all_of_them = f"{len(part)} {name}"
            which = all_of_them if len(part) <= _SHOWN else f"The first {_SHOWN} of {all_of_them}"
            said = f"{which}, each in its own range of grey."
            pictures.append(Picture.of(sheet(part[:_SHOWN]), said, said))
    content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    page = attack_page(content, evaluation, text=text, pictures=pictures)
    with replacing(folder / PAGE) as path:
        path.write_text(render([page]), encoding="utf-8")
