"""Compare rlx with a peer on the same work: fresh processes, pinned to one core, in alternation.

    python -m benchmarks.compare --what ppo --peer-python PATH --core 0 --runs 5 --out benchmarks/results/ppo.json

Alternation (A B A B ...) lets a noisy machine disturb both alike, so ratios are what to read. There are three series:
`cold` (no compilation cache), `warm` (a persistent cache filled by a run before) and `steady` (a compiled run repeated
within one process). A ratio below 1 means that rlx takes less. `--what envs` has the last alone: nanoseconds of CPU
time for each environment step, by environment and number of environments.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workers.common import PPO

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Work:
    """One piece of work, and the module that does it for each library.

    Attributes:
        workers: module of each library; the first is rlx's, the second the default peer's.
        env_steps: of one run of a training; None where environments are stepped and nothing is trained.
    """

    workers: dict[str, str]
    env_steps: int | None = None


WORKS = {
    "ppo": Work(
        env_steps=PPO["updates"] * PPO["num_envs"] * PPO["num_steps"],
        workers={"rlx": "benchmarks.workers.ppo_rlx", "rejax": "benchmarks.workers.ppo_rejax"},
    ),
    "envs": Work(workers={"rlx": "benchmarks.workers.envs_rlx", "gymnax": "benchmarks.workers.envs_gymnax"}),
}
STAGES = ("import", "build", "compile", "run")  # compile: tracing and lowering too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=WORKS, default="ppo")
    parser.add_argument("--peer", default=None, help="the library to compare with; the first that the work knows")
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter of the environment the peer lives in"
    )
    parser.add_argument("--core", type=int, default=None, help="pin every process to it")
    parser.add_argument("--runs", type=int, default=5, help="processes of each library in each series")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions in a process of the steady series")
    parser.add_argument("--seeds", type=int, default=2, help="untimed runs that check what was learned; 0 for none")
    parser.add_argument("--out", type=Path, default=None, help="where to write the results, as JSON")
    args = parser.parse_args()

    work = WORKS[args.what]
    peer = args.peer or list(work.workers)[1]
    pythons = {"rlx": sys.executable, peer: args.peer_python}
    result: dict[str, Any] = {"provenance": provenance(), "work": args.what}
    with tempfile.TemporaryDirectory() as folder:

        def run(library: str, *flags: str, cache: bool = False) -> dict[str, Any]:
            command = [pythons[library], "-m", work.workers[library], *flags]
            return run_worker(command, f"{folder}/{library}" if cache else None, args.core)

        def series(*flags: str, cache: bool = False) -> dict[str, list[dict[str, Any]]]:
            rounds = [{library: run(library, *flags, cache=cache) for library in pythons} for _ in range(args.runs)]
            return {library: [each[library] for each in rounds] for library in pythons}

        if work.env_steps is None:
            steady = series(f"--repeat={args.repeat}")
            result["check"] = {library: rows[0]["episode_length"] for library, rows in steady.items()}
            result["steady"] = compare(peer, steady, lambda row: row["nanoseconds"])
        else:
            env_steps = result["env_steps"] = work.env_steps
            result["check"] = {
                library: [run(library, "--check", f"--seed={seed}")["check"] for seed in range(args.seeds)]
                for library in pythons
            }
            result["cold"] = compare(peer, series(), fresh_metrics)
            for library in pythons:
                run(library, cache=True)
            result["warm"] = compare(peer, series(cache=True), fresh_metrics)
            steady = series(f"--repeat={args.repeat}")
            result["steady"] = compare(peer, steady, lambda row: steady_metrics(row, env_steps))

    result["versions"] = {library: rows[0]["versions"] for library, rows in steady.items()}
    print_table(peer, result)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def run_worker(command: list[str], cache: str | None, core: int | None) -> dict[str, Any]:
    """Run one process to its end: the line it printed, and its wall and CPU time and peak memory as a whole."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    env["JAX_PLATFORMS"] = "cpu"
    if cache is None:
        env["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    else:
        env["JAX_COMPILATION_CACHE_DIR"] = cache
        env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        env["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    with tempfile.TemporaryFile("w+") as stdout:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stdout, preexec_fn=pin)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} failed with {process.returncode}")
        stdout.seek(0)
        line = json.loads(stdout.read().splitlines()[-1])
    line["wall"]["process"], line["cpu"]["process"] = wall, usage.ru_utime + usage.ru_stime
    line["peak_memory_mib"] = usage.ru_maxrss / 1024
    return line


def fresh_metrics(row: dict[str, Any]) -> dict[str, float]:
    """Seconds of every stage and of the whole process, by wall and CPU, and its peak memory."""
    stages = {f"{stage}_{kind}": row[kind][stage] for kind in ("wall", "cpu") for stage in (*STAGES, "process")}
    return stages | {"peak_memory_mib": row["peak_memory_mib"]}


def steady_metrics(row: dict[str, Any], env_steps: int) -> dict[str, float]:
    """Seconds of one run of the compiled program, the median of the process's repetitions, and steps per second."""
    wall, cpu = median(row["steady_wall"]), median(row["steady_cpu"])
    return {"run_wall": wall, "run_cpu": cpu, "steps_per_cpu_second": env_steps / cpu}


def compare(peer: str, rows: dict[str, list[dict[str, Any]]], metrics: Any) -> dict[str, Any]:
    """Median, min and max of each metric for both, and rlx / peer: of the medians, and the median over the pairs."""
    values = {library: [metrics(row) for row in series] for library, series in rows.items()}
    result = {}
    for name in values["rlx"][0]:
        ours, theirs = [row[name] for row in values["rlx"]], [row[name] for row in values[peer]]
        result[name] = {
            "rlx": spread(ours),
            peer: spread(theirs),
            "ratio": round(median(ours) / median(theirs), 4),
            "ratio_of_pairs": round(median(a / b for a, b in zip(ours, theirs, strict=True)), 4),
        }
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Median, min and max to six digits."""
    return {
        name: float(f"{function(values):.6g}") for name, function in (("median", median), ("min", min), ("max", max))
    }


def provenance() -> dict[str, Any]:
    """Where and how these numbers came about; paths of this machine are cut to their last part."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "rlx"], capture_output=True, text=True)
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return {
        "command": " ".join(["python -m benchmarks.compare", *(arg.rsplit("/", 1)[-1] for arg in sys.argv[1:])]),
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "modified": bool(changed.stdout.strip()),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def print_table(peer: str, result: dict[str, Any]) -> None:
    """Print medians (min to max) and ratios; stages of a few milliseconds are left to the JSON."""
    print(f"{'':28}{'rlx':>28}{peer:>28}{'ratio':>8}{'pairs':>8}")
    for series in ("cold", "warm", "steady"):
        for name, row in result.get(series, {}).items():
            if row[peer]["max"] < 0.01:
                continue
            cells = [f"{row[x]['median']:.4g} ({row[x]['min']:.4g}-{row[x]['max']:.4g})" for x in ("rlx", peer)]
            print(
                f"{series + ' ' + name:28}{cells[0]:>28}{cells[1]:>28}{row['ratio']:8.3f}{row['ratio_of_pairs']:8.3f}"
            )
    for library, rows in result["check"].items():
        print(f"check {library}: {rows}")


if __name__ == "__main__":
    main()
