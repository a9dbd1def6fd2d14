"""How long things take."""

from __future__ import annotations

import time

import jax


class Stopwatch:
    """Takes the time of training, and of the tracing, lowering and compiling in it.

    Attributes:
        compile_s: seconds that JAX spent on compiling since this was made.
    """

    def __init__(self) -> None:
        self.compile_s = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        self.start()

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            self.compile_s += duration_secs

    def start(self) -> None:
        """Training begins."""
        self._begun, self._compiled = time.perf_counter(), self.compile_s

    @property
    def train_s(self) -> float:
        """Seconds since training began."""
        return time.perf_counter() - self._begun

    @property
    def run_s(self) -> float:
        """Seconds since training began, compilation apart."""
        return self.train_s - (self.compile_s - self._compiled)
