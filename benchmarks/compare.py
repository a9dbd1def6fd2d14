"""Compare rlx with its peers on the same work: fresh processes, pinned to one core, in alternation.

    python -m benchmarks.compare --what ppo,dqn,sac,envs,replay,text --core 0

writes benchmarks/results/compare_WHAT.json, from which README's tables are made. Each peer lives in a virtual
environment of its own, made when it is first needed in `--environments` (.peers). Alternation (A B A B ...) lets a
noisy machine disturb all alike, so ratios are what to read, rlx / peer: below 1 rlx takes less time or memory, above 1
it has the higher rate (`..._per_s`).

There are three series: `cold` (no compilation cache), `warm` (a persistent cache filled by a run before) and `steady`
(a compiled run repeated within one process, by CPU time). Environments, replays and text have nanoseconds of CPU time
alone: a step of an environment, a round of adding and sampling, a token. `matrix_gflop` are those of the work's matrix
products, and `peak_gflop_per_s` is the rate of large ones on this core, the highest of several measurements in the same
run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workers.common import WORKS, Work

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PEERS = {  # what pip installs for each; rlx itself is read from the checkout
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9", "six"],
    "gymnax": ["gymnax==0.0.9"],
    "flashbax": ["flashbax==0.1.3", "gymnasium>=1.1"],
    "sbx": ["sbx-rl==0.28.0"],
    "sb3": ["stable-baselines3==2.9.2"],
    "transformers": ["torch", "transformers==5.23.0"],
}
STAGES = ("import", "build", "trace", "compile", "run", "process")  # trace: lowering too
Rows = dict[str, list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default=",".join(WORKS), help=f"any of {','.join(WORKS)}")
    parser.add_argument("--core", type=int, default=None, help="pin every process to it")
    parser.add_argument("--runs", type=int, default=5, help="processes of each library in each series")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions in a process of the steady series")
    parser.add_argument("--seeds", type=int, default=2, help="untimed runs that check what was learned; 0 for none")
    parser.add_argument("--environments", type=Path, default=ROOT / ".peers", help="where the peers' environments are")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    args = parser.parse_args()
    chosen = args.what.split(",")
    if unknown := sorted(set(chosen) - set(WORKS)):
        parser.error(f"--what {','.join(unknown)}: choose from {','.join(WORKS)}")
    for what in chosen:
        result: dict[str, Any] = {"provenance": provenance("compare"), "works": {}, "peak_gflop_per_s": 0.0}
        for name, work in WORKS[what].items():
            print(name, flush=True)
            pythons = {peer: interpreter(args.environments, peer) for peer in work.workers}
            result["works"][name] = compare_work(name, work, pythons, args)
            print_table(result["works"][name])
            peak = run_worker([sys.executable, "-m", "benchmarks.workers.peak"], None, args.core)["flop_per_s"] / 1e9
            result["peak_gflop_per_s"] = round(max(peak, result["peak_gflop_per_s"]), 1)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"compare_{what}.json").write_text(json.dumps(result, indent=1) + "\n")


def interpreter(environments: Path, library: str) -> str:
    """The Python that has a library; its environment is made if there is none."""
    if library == "rlx":
        return sys.executable
    folder = environments / library
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        same_jax = [] if library in ("sb3", "transformers") else ["jax==" + version_of("jax")]
        packages = [*PEERS[library], *same_jax]
        print(f"making {folder.name}'s environment: {' '.join(packages)}", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        done.touch()
    return str(python)


def compare_work(name: str, work: Work, pythons: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    """Every series of one piece of work."""
    with tempfile.TemporaryDirectory() as folder:

        def run(library: str, *flags: str, cache: bool = False) -> dict[str, Any]:
            module = f"benchmarks.workers.{work.workers[library]}"
            command = [pythons[library], "-m", module, f"--work={name}", *flags]
            return run_worker(command, f"{folder}/{library}" if cache else None, args.core)

        def series(*flags: str, cache: bool = False) -> Rows:
            rounds = [{library: run(library, *flags, cache=cache) for library in pythons} for _ in range(args.runs)]
            return {library: [each[library] for each in rounds] for library in pythons}

        result: dict[str, Any] = {}
        if work.env_steps:
            result |= {"env_steps": work.env_steps, "gradient_steps": work.gradient_steps}
            result["check"] = {
                library: [run(library, "--check", f"--seed={seed}")["check"] for seed in range(args.seeds)]
                for library in pythons
            }
        if work.fresh:
            result["cold"] = compare(series(), fresh_metrics)
            for library in pythons:
                run(library, cache=True)
            result["warm"] = compare(series(cache=True), fresh_metrics)
        steady = series(f"--repeat={args.repeat}")
        if not work.env_steps:
            result["check"] = {library: rows[0]["check"] for library, rows in steady.items()}
            result["steady"] = compare(steady, lambda row: row["nanoseconds"])
        else:
            result["steady"] = compare(steady, lambda row: steady_metrics(row, work))
            result["matrix_gflop"] = steady["rlx"][0]["matrix_flop"] / 1e9
    result["versions"] = {library: rows[0]["versions"] for library, rows in steady.items()}
    return result


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
    """Seconds of every stage and of the whole process by the clock on the wall, and peak memory."""
    return {stage: row["wall"][stage] for stage in STAGES} | {"peak_memory_mib": row["peak_memory_mib"]}


def steady_metrics(row: dict[str, Any], work: Work) -> dict[str, float]:
    """Seconds of CPU time of one run of the compiled program, the median of the process's repetitions, and rates."""
    seconds = median(row["steady_cpu"])
    return {
        "run": seconds,
        "env_steps_per_s": work.env_steps / seconds,
        "gradient_steps_per_s": work.gradient_steps / seconds,
        "peak_memory_mib": row["peak_memory_mib"],
    }


def compare(rows: Rows, metrics: Callable[[dict[str, Any]], dict[str, float]]) -> dict[str, Any]:
    """Each metric by library, and rlx / peer by peer: of the medians, and the median over the pairs."""
    values = {library: [metrics(row) for row in series] for library, series in rows.items()}
    peers = [library for library in values if library != "rlx"]
    result = {}
    for name in values["rlx"][0]:
        of = {library: [row[name] for row in series] for library, series in values.items()}
        result[name] = {library: spread(numbers) for library, numbers in of.items()}
        result[name]["ratio"] = {peer: round(median(of["rlx"]) / median(of[peer]), 4) for peer in peers}
        result[name]["ratio_of_pairs"] = {
            peer: round(median(a / b for a, b in zip(of["rlx"], of[peer], strict=True)), 4) for peer in peers
        }
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Median, min and max to six digits."""
    return {
        name: float(f"{function(values):.6g}") for name, function in (("median", median), ("min", min), ("max", max))
    }


def provenance(module: str) -> dict[str, Any]:
    """Where and how these numbers came about; paths of this machine are cut to their last part."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "rlx"], capture_output=True, text=True)
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return {
        "command": " ".join([f"python -m benchmarks.{module}", *(arg.rsplit("/", 1)[-1] for arg in sys.argv[1:])]),
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "modified": bool(changed.stdout.strip()),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def print_table(result: dict[str, Any]) -> None:
    """Print medians (min to max) and, behind each peer's, the ratio of the medians."""
    for series in ("cold", "warm", "steady"):
        for name, row in result.get(series, {}).items():
            cells = [
                f"{library} {row[library]['median']:.4g} ({row[library]['min']:.4g}-{row[library]['max']:.4g})"
                + (f" ratio {row['ratio'][library]:.3f}" if library in row["ratio"] else "")
                for library in result["versions"]
            ]
            print(f"  {series + ' ' + name:28}" + "   ".join(cells))
    for library, facts in result["check"].items():
        print(f"  check {library}: {facts}", flush=True)


if __name__ == "__main__":
    main()
