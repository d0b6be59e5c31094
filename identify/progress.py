"""Progress of a computation: a callback, and the log of the library beside it."""

from __future__ import annotations

import logging

from identify.budget import Progress


def logged(progress: Progress | None, log: logging.Logger) -> Progress:
    """The callback (stage, share in [0, 1]), and a line of the log for every new stage.

    Example:
        >>> tell = logged(lambda stage, share: print(stage, share), logging.getLogger("identify"))
        >>> tell("solving", 0.5)
        solving 0.5
    """
    last = ""

    def tell(stage: str, share: float) -> None:
        nonlocal last
        if stage != last:
            log.info("%s", stage)
        last = stage
        if progress is not None:
            progress(stage, share)

    return tell
