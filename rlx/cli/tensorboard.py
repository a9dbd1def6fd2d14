"""TensorBoard's event files, through tensorboardX: what metrics.jsonl holds, a folder a seed."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlx.cli.metrics import metric_names


def require_tensorboard() -> None:
    """Raise an ImportError that says what to install, where tensorboardX is missing."""
    if find_spec("tensorboardX") is None:
        raise ImportError("--tensorboard needs tensorboardX: pip install 'rlx[tensorboard]'")


class EventFiles:
    """An event file a seed, one event a line of metrics.jsonl; the step is in the unit of the run.

    They are written anew from the lines that are kept, so that a resumed run has every event once.
    """

    def __init__(self, folder: Path, seeds: list[int], rows: list[dict[str, Any]], unit: str = "env_steps") -> None:
        """Begin the files.

        Args:
            folder: takes a folder `seed-N` for each seed.
            seeds: those of the group.
            rows: lines of metrics.jsonl up to here.
            unit: which of their entries is the step.
        """
        self._unit = unit
        self._begun = time.time() - (rows[-1]["time_s"] if rows else 0.0)  # as if it had never been stopped
        self._writers = [open_events(folder / f"seed-{seed}", self._begun) for seed in seeds]
        for row in rows:
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """Append a line of metrics.jsonl; what is null is left out."""
        # protobuf makes its classes as it is imported
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        for index, writer in enumerate(self._writers):
            metrics = {name: row[name][index] for name in metric_names(row) if row[name][index] is not None}
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()])
            event = Event(wall_time=self._begun + row["time_s"], step=row[self._unit], summary=summary)
            writer.write(event.SerializeToString())

    def flush(self) -> None:
        """Bring the events to the disk."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """End the files."""
        for writer in self._writers:
            writer.close()


def open_events(folder: Path, wall_time: float) -> Any:
    """Begin an event file in place of those that are there."""
    from tensorboardX import RecordWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink()
    writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
    writer.write(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())
    # a TensorBoard that is looking on forgets the events of the files that were there
    writer.write(Event(wall_time=wall_time, session_log=SessionLog(status=SessionLog.START)).SerializeToString())
    return writer
