"""What writes the lines of metrics.jsonl."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rlx.cli.tensorboard import EventFiles


class MetricsLog:
    """Appends a group's lines to metrics.jsonl and, where they are asked for, to TensorBoard's event files."""

    def __init__(
        self, file: Path, rows: list[dict[str, Any]], seeds: list[int], events: Path | None, unit: str
    ) -> None:
        self._file = file.open("a")
        self._events = EventFiles(events, seeds, rows, unit) if events else None

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._events:
            self._events.close()

    def write(self, row: dict[str, Any]) -> None:
        """Append a line, for others to read at once."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._events:
            self._events.write(row)

    def sync(self) -> None:
        """Bring the lines to the disk: a checkpoint must not be there without them."""
        os.fsync(self._file.fileno())
        if self._events:
            self._events.flush()
