"""`rlx export`: the policy of a run as files for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import rlx
from rlx.cli.algorithms import ALGORITHMS
from rlx.cli.metrics import failed_seeds, read_rows
from rlx.cli.parsing import UsageError, one_folder, parse, read_spec, user_errors
from rlx.cli.processes import groups
from rlx.cli.spec import Spec
from rlx.cli.train import make_group, restore, state_of, warn


@dataclass(frozen=True)
class ExportOptions:
    """What to write, and where."""

    out: Path = Path("policy")  # folder for policy.npz and policy.py, which need NumPy alone
    seed: int | None = None  # the seed of the run whose policy leaves; default: the first that did not fail
    jax: bool = False  # write policy.jax instead, a program for jax.export.deserialize


def export(argv: list[str]) -> int:
    """`rlx export RUN [flags]`."""
    folder, rest = (Path(), argv) if {"-h", "--help"} & set(argv) else one_folder(argv, "rlx export RUN")
    with user_errors():
        options = parse({"export": ExportOptions()}, rest, "rlx export RUN")["export"]
    spec = read_spec(folder)
    if not isinstance(spec, Spec):
        raise UsageError(f"{folder} is a run of language: rlx export writes policies of environments")
    failed = failed_seeds(read_rows(folder / "metrics.jsonl"))
    seed = options.seed if options.seed is not None else next((s for s in spec.seeds if s not in failed), None)
    if seed not in spec.seeds:
        raise UsageError(f"--seed {seed}: the seeds of the run are {spec.seeds}, failed: {[*failed]}")
    seeds, path = next((seeds, path) for seeds, path in groups(spec, folder) if seed in seeds)
    with user_errors():
        group = make_group(spec, seeds)
    restored = restore(group, path / "checkpoints", warn)
    if restored is None:
        raise UsageError(f"{path} has no checkpoint yet: nothing to export")
    state = state_of(group, restored[1], seeds.index(seed))
    with user_errors():
        if options.jax:
            options.out.mkdir(parents=True, exist_ok=True)
            rlx.export_jax(options.out / "policy.jax", group.algorithm, state, spec.make_env())
        else:
            entry = ALGORITHMS[spec.algorithm]
            if entry.network is None:
                raise UsageError(f"{spec.algorithm} has a table, not a network: use --jax")
            network, *_ = entry.networks(spec.make_env(), spec.network)
            rlx.export_numpy(options.out, spec.make_env(), network, *entry.policy(state))
    files = "policy.jax" if options.jax else "policy.npz, policy.py"
    print(f"policy of seed {seed} after update {restored[0]}: {files} in {options.out}")
    return 0
