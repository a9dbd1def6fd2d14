"""`rlx overopt`: the overoptimisation laboratory, from nothing to a report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.cli.parsing import UsageError, make_folder, parse, user_errors
from rlx.cli.processes import alone, catch_signals, channel, in_processes
from rlx.cli.report import Clock, command_line, provenance, write_json
from rlx.cli.train import warn
from rlx.experiments.overoptimization.lab import LabConfig, Place, run_place
from rlx.experiments.overoptimization.presets import preset
from rlx.experiments.overoptimization.report import write_report
from rlx.experiments.overoptimization.results import make_result, result_lines


@dataclass(frozen=True)
class OveroptOptions:
    """What to run."""

    preset: str = "quick"  # quick, paper, or one study: size, data, policy, penalty, methods, iterated, noise, direct
    out: Path | None = None  # folder of the results; default: runs/overopt-PRESET-TIME
    seeds: int | None = None  # runs of every arm; default: the preset's
    progress: bool = True  # show a progress bar where standard error is a terminal


def overopt(argv: list[str], clock: Clock) -> int:
    """`rlx overopt [flags]`."""
    with user_errors():
        options = parse({"run": OveroptOptions()}, argv, "rlx overopt")["run"]
        config = preset(options.preset, options.seeds)
        import matplotlib  # noqa: F401  # before the work, not after it
    out = options.out or Path("runs", f"overopt-{options.preset}-{time.strftime('%Y%m%d-%H%M%S')}")
    make_folder(out)
    write_json(out / "config.json", to_json(options, config))
    return carry_out(config, options, out, clock)


def is_overopt(folder: Path) -> bool:
    """Whether a folder is an experiment of `rlx overopt`."""
    try:
        return "overopt" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def resume_overopt(folder: Path, clock: Clock) -> int:
    """Go on with an experiment: arms that are done stay."""
    file = folder / "config.json"
    data = json.loads(file.read_text())
    if not {"seeds", "config"} <= data.keys():
        raise UsageError(f"{file} is broken: no seeds or no config")
    with user_errors():
        options = OveroptOptions(preset=data["overopt"], out=folder, seeds=data["seeds"])
        config = preset(options.preset, options.seeds)
    if to_json(options, config)["config"] != data["config"]:
        raise UsageError(f"{folder} was begun by another version of rlx, whose settings differ: begin anew")
    return carry_out(config, options, folder, clock)


def to_json(options: OveroptOptions, config: LabConfig) -> dict[str, Any]:
    """What config.json holds."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    return {"overopt": options.preset, "seeds": options.seeds, "config": plain, "command": command_line()}


def carry_out(config: LabConfig, options: OveroptOptions, out: Path, clock: Clock) -> int:
    """Run all worlds, then write the result and the report."""
    stop = catch_signals()
    total = sum(len(config.arms(place)) for place in config.places)
    with alone(out), (out / "stages.jsonl").open("a") as stages, bar(total, options.progress) as advance:

        def report(place: str, name: str, seconds: float) -> None:
            if seconds:
                stages.write(json.dumps({"name": f"{place}: {name}", "seconds": round(seconds, 2)}) + "\n")
                stages.flush()
            advance(place, name)

        tasks = [(config, place, out) for place in config.places]
        if not all(in_processes(run_in_process, tasks, report, stop)):
            warn(f"stopped; all arms that are done are kept; go on with: rlx resume {shlex.quote(str(out))}")
            return 128 + stop.signal
        told = {"preset": options.preset, "command": command_line(), **provenance()}
        told |= {"wall_s": round(time.perf_counter() - clock.started, 1), "stages": read_stages(out)}
        result = make_result(config, out, told)
        write_json(out / "result.json", result)
        write_report(result, out)
    for line in result_lines(result):
        print(line)
    print(f"result.json, figures and report.html are in {out}")
    return 0


def read_stages(out: Path) -> list[dict[str, Any]]:
    """What was done, with the seconds it took, by all the processes that worked on it; without lines cut off."""
    rows = []
    for line in (out / "stages.jsonl").read_text().splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def run_in_process(config: LabConfig, place: Place, out: Path) -> bool:
    """Run one world in this process."""
    send, stopping = channel()
    return run_place(config, place, out, lambda name, seconds: send((place.name, name, seconds)), stopping)


@contextlib.contextmanager
def bar(total: int, shown: bool) -> Iterator[Callable[[str, str], None]]:
    """Show how many arms of all worlds are done; gives what to tell of each."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    disable = not (shown and console.is_terminal)
    with Progress(*columns, TextColumn("{task.description}"), console=console, disable=disable) as progress:
        task = progress.add_task("the first policies", total=total)

        def advance(place: str, name: str) -> None:
            progress.update(task, description=f"{place}: {name}", advance=name != "world")

        yield advance
