"""``python -m checker REPORT.json MODEL``, also where this folder was copied on its own."""

from .check import main

raise SystemExit(main())
