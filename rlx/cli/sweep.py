"""`rlx sweep`: many configurations, ranked, and the best one as a run."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from rlx.cli.options import RunOptions
from rlx.cli.parsing import UsageError, default_folder, make_folder, parse, user_errors, what_where
from rlx.cli.processes import catch_signals
from rlx.cli.report import Clock, provenance, statistics, write_json
from rlx.cli.spec import Spec, preset
from rlx.cli.sweep_plot import draw_sweep
from rlx.cli.train import make_group, warn
from rlx.cli.trials import Trial, describe_value, describe_values, ranked, train_alone, train_together
from rlx.cli.vary import Varied, configurations, programs, read_vary, with_values

USAGE = """usage: rlx sweep ALGORITHM ENV --vary FIELD=VALUES [--vary FIELD=VALUES ...] [flags]

Train many configurations with the same seeds, rank them, and leave the best one as a run that every command takes.

  --vary learning_rate=1e-4,3e-4,1e-3       these values; of several fields, every combination
  --vary clip=0.1..0.3 --samples 64         64 configurations drawn from the range
  --vary learning_rate=log:1e-5..1e-2       a range whose logarithm is uniform
  --vary hidden="64 64,256 256"             values of several words

Configurations that differ in floats of the algorithm or the optimizer are one program; any other value is a program of
its own. Over gymnasium's environments they run in turn. `rlx sweep ALGORITHM ENV --help` lists the flags and fields.
"""
SHOWN = 20  # rows of the table


@dataclass(frozen=True)
class SweepOptions:
    """What to vary, and where to put what comes of it."""

    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()  # FIELD=A,B,C, =LOW..HIGH or =log:LOW..HIGH
    samples: int | None = None  # configurations to draw, where there are ranges
    seeds: int = 4  # how many seeds to train each configuration with
    seed: int = 1000  # the first of them, apart from those to report: the best of many was lucky on its own seeds
    steps: int = 100_000  # environment steps per seed; never exceeded
    out: Path | None = None  # folder of the sweep; default: runs/sweep-ALGORITHM-ENV-TIME
    gymnasium: bool = False  # train in gymnasium's own environment, also where rlx has a JAX one
    progress: bool = True  # show the progress bar


def sweep(argv: list[str], clock: Clock) -> int:
    """`rlx sweep ALGORITHM ENV [flags]`."""
    names = what_where(argv, "sweep", USAGE)
    if not names:
        return 0
    with user_errors():
        options, base = read_flags(names, argv[2:])
        varied = read_vary(base, options.vary)
        refuse_given(argv[2:], varied)
        found = configurations(varied, options.samples, options.seed)
        out = base.run.out or default_folder("sweep-", *names)
        trials = [make_trial(base, out, number, values, len(found)) for number, values in enumerate(found)]
        together = programs(base, found)
        for numbers in together:
            make_group(trials[numbers[0]].spec, trials[0].spec.seeds[:1])
    make_folder(out)
    data = {"run": base.to_json(), "vary": list(options.vary), "samples": options.samples, "configurations": found}
    write_json(out / "sweep.json", data)
    return carry_out(base, out, trials, together, clock)


def refuse_given(argv: list[str], varied: Varied) -> None:
    """Raise where a field that varies has a flag of its own, which would say nothing."""
    for flag in (word.partition("=")[0] for word in argv if word.startswith("--")):
        if flag.removeprefix("--").removeprefix("no-").replace("-", "_") in varied:
            raise UsageError(f"{flag} is given, and --vary varies it: drop one of them")


def read_flags(names: list[str], argv: list[str]) -> tuple[SweepOptions, Spec]:
    """Read the flags: the sweep's own, and the run that its configurations begin from."""
    default = preset(*names)
    defaults: dict[str, Any] = {
        "sweep": SweepOptions(steps=default.run.steps, gymnasium=default.run.gymnasium),
        "config": default.config,
    }
    if default.network is not None:
        defaults |= {"optimizer": default.optimizer, "network": default.network}
    given = parse(defaults, argv, f"rlx sweep {names[0]} {names[1]}")
    options = given.pop("sweep")
    common = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    run = {name: value for name, value in common.items() if name not in ("vary", "samples")}
    return options, dataclasses.replace(default, **given, run=RunOptions(**run, keep_checkpoints=1))


def make_trial(base: Spec, out: Path, number: int, values: dict[str, Any], count: int) -> Trial:
    """Make a configuration that has a folder of its own; what its values cannot be is a ValueError."""
    folder = out / "configurations" / f"{number:0{len(str(count - 1))}}"
    run = dataclasses.replace(base.run, out=folder)
    return Trial(number, values, dataclasses.replace(with_values(base, values), run=run), [], {})


def carry_out(base: Spec, out: Path, trials: list[Trial], together: list[list[int]], clock: Clock) -> int:
    """Train every program, then write what the sweep leaves; what is finished counts where a signal stops it."""
    stop, done = catch_signals(), []
    name = f"{base.algorithm} {base.env}"
    for index, numbers in enumerate(together):
        title = f"{name}, {index + 1} of {len(together)}" if len(together) > 1 else name
        members = [trials[number] for number in numbers]
        trained = (
            train_alone(members[0], title, stop, clock)
            if len(members) == 1
            else train_together(members, title, stop, clock)
        )
        done += trained
        if not trained or (stop.signal and len(done) < len(trials)):
            break
    stopped = len(done) < len(trials)
    if not done:
        warn(f"stopped before any configuration was finished: nothing is ranked in {out}")
        return 128 + stop.signal
    order = ranked(done)
    best = keep_best(order[0], out, len(trials))
    write_result(base, out, trials, order, len(together), clock)
    try:
        draw_sweep(out / "sweep.png", f"{base.algorithm} on {base.env}", order)
    except ImportError:
        warn("sweep.png is not drawn, as matplotlib is missing: pip install 'rlx[plot]'")
    print(table(order))
    print(f"{name}, {len(done)} configurations, {base.run.seeds} seeds, {base.evaluation}; all in {out}")
    if best is None:
        print("every seed of every configuration failed")
    else:
        print(f"best: {describe_values(order[0].values)}; rlx eval {shlex.quote(str(best))}")
    if stopped:
        warn(f"stopped: {len(trials) - len(done)} of {len(trials)} configurations are not finished and not ranked")
        return 128 + stop.signal
    return 0 if best else 1


def keep_best(best: Trial, out: Path, count: int) -> Path | None:
    """Move the run of the best configuration to `best`, and say in it where it is from; None where all seeds failed."""
    if len(best.failed) == len(best.spec.seeds):
        return None
    folder = best.folder.rename(out / "best")
    if not any((out / "configurations").iterdir()):
        shutil.rmtree(out / "configurations")
    spec = dataclasses.replace(best.spec, run=dataclasses.replace(best.spec.run, out=folder))
    write_json(folder / "config.json", spec.to_json())
    result = json.loads((folder / "result.json").read_text())
    note = "the best of so many does better on these seeds than on others; wall_s and compile_s are of the whole sweep"
    origin = {"configuration": best.number, "of": count, "note": note}
    write_json(folder / "result.json", result | {"config": spec.to_json(), "sweep": origin})
    return folder


def write_result(
    base: Spec, out: Path, trials: list[Trial], order: list[Trial], num_programs: int, clock: Clock
) -> None:
    """Write result.json."""
    done = {trial.number for trial in order}
    result = {
        "algorithm": base.algorithm,
        "env": base.env,
        "seeds": base.seeds,
        "programs": num_programs,
        "ranking": [describe_trial(trial) for trial in order],
        "unfinished": [trial.number for trial in trials if trial.number not in done],
        "wall_s": round(time.perf_counter() - clock.started, 3),
        "import_s": round(clock.import_s, 3),
        **provenance(),
        "command": shlex.join(["rlx", *sys.argv[1:]]),
    }
    write_json(out / "result.json", result)


def describe_trial(trial: Trial) -> dict[str, Any]:
    """Give a trial as JSON values."""
    known = [value for value in trial.final_return if value is not None]
    data = {"configuration": trial.number, "values": trial.values, "final_return": trial.final_return}
    return data | statistics(known) | {"failed": trial.failed}


def table(order: list[Trial]) -> str:
    """Lay out the ranked trials in columns, the best ones first."""
    head = ["rank", *order[0].values, "mean", "IQM", "95 % interval", "failed seeds"]
    rows = []
    for index, trial in enumerate(order[:SHOWN]):
        told = describe_trial(trial)
        interval = "{:.2f} to {:.2f}".format(*told["ci95"]) if told["ci95"] else "-"
        numbers = [f"{told[name]:.2f}" if told[name] is not None else "-" for name in ("mean", "iqm")]
        failed = " ".join(map(str, trial.failed)) or "-"
        rows.append([str(index + 1), *map(describe_value, trial.values.values()), *numbers, interval, failed])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in (head, *rows)]
    rest = [f"... and {len(order) - SHOWN} more in result.json"] if len(order) > SHOWN else []
    return "\n".join([*lines, *rest])
