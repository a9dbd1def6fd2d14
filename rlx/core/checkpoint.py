"""Checkpoints of a whole state: through orbax, written atomically, with a checksum of every file. Never pickle.

A checkpoint is a folder named by its step. It is written under another name, flushed and renamed, so that a folder of
that name is whole; `manifest.json` in it holds the SHA-256 of every file, so that damage is noticed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp

from rlx.core.normalize import RewardScaler
from rlx.core.rollout import RolloutState
from rlx.types import Algorithm, Key, PyTree

MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names it and says why."""


def save_checkpoint(
    folder: Path, step: int, state: PyTree, keep: int = 3, pinned: frozenset[int] = frozenset()
) -> Path:
    """Write a state as `folder/<step>` and remove all but the last `keep` checkpoints and the pinned ones.

    Checkpoints of later steps are removed too: they belong to a past that the run went back from.

    Args:
        folder: of the run's checkpoints; made if need be.
        step: algorithm steps done.
        state: any pytree of arrays, typed PRNG keys included.
        keep: how many to keep, 1 or more.
        pinned: steps never to remove.

    Raises:
        OSError: the disk is full or the folder not writable; older checkpoints stay.
    """
    import orbax.checkpoint as ocp

    final, partial = folder / str(step), folder / f"partial-{step}"
    if keep < 1:
        raise ValueError(f"keep={keep} must be 1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("partial-*"):  # of a process that was killed
        shutil.rmtree(leftover)
    arrays = {name: leaf for name, leaf in _named(_plain(state)).items() if leaf.size}  # orbax refuses empty arrays
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < sum(leaf.nbytes for leaf in arrays.values()) + 2**20:  # its own files: 0.1 MB
        raise OSError(errno.ENOSPC, "no space left on the disk for this checkpoint", str(final))
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(partial.absolute() / "arrays", arrays)
    except ValueError as error:  # so tensorstore reports an OSError
        raise OSError(errno.EIO, f"checkpoint not written: {str(error).splitlines()[0][:200]}", str(final)) from error
    digests = {str(file.relative_to(partial)): _digest(file) for file in _files(partial)}
    (partial / MANIFEST).write_text(json.dumps({"step": step, "sha256": digests}, indent=1))
    for file in [*_files(partial), partial]:
        _sync(file)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(folder)
    steps = checkpoint_steps(folder)
    earlier = steps[: steps.index(step) + 1]
    for old in steps:
        if old not in earlier[-keep:] and old not in pinned:
            shutil.rmtree(folder / str(old))
    return final


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, in order."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def load_checkpoint(path: Path, like: PyTree, part: str = "") -> PyTree:
    """Read a state back, exactly as it was saved. No code of the checkpoint is run.

    Args:
        path: of one checkpoint.
        like: a state of the same algorithm, or its `jax.eval_shape`: gives structure, shapes and dtypes.
        part: where in the state that is which is wanted, as "learner.params"; then `like` is of that part.

    Raises:
        CheckpointError: missing, truncated or changed files, or a state of another algorithm or configuration.
    """
    import orbax.checkpoint as ocp

    _verify(path)
    wanted = _named(jax.eval_shape(_plain, like), part)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
        for name, leaf in wanted.items()
        if leaf.size
    }
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path.absolute() / "arrays").item_metadata
        others = {name: leaf for name, leaf in metadata.items() if part and not name.startswith(f"{part}.")}
        saved = {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in metadata.items() if name not in others}
        for name in sorted(saved.keys() | abstract.keys()):
            here = (tuple(abstract[name].shape), str(abstract[name].dtype)) if name in abstract else None
            if saved.get(name) != here:
                raise CheckpointError(
                    f"checkpoint {path}: {name} is {saved.get(name, 'absent')} there and {here or 'absent'} here: "
                    "it was saved by another algorithm or configuration"
                )
        for name, leaf in others.items():  # orbax reads all or nothing
            abstract[name] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
        args = ocp.checkpoint_utils.construct_restore_args(abstract)
        arrays = checkpointer.restore(path.absolute() / "arrays", item=abstract, restore_args=args)
    leaves = [arrays[name] if name in arrays else jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in wanted.items()]
    structure = jax.tree.structure(like)
    return jax.tree.map(_typed, like, jax.tree.unflatten(structure, leaves))


def restart_environments(algorithm: Algorithm, state: PyTree, key: Key) -> PyTree:
    """Begin new episodes in the host environments of a state that was loaded: a checkpoint cannot hold them.

    Args:
        algorithm: a host algorithm; its environments are reset.
        state: as it was loaded; all else in it stays.
        key: for the resets.
    """

    def choose(new: PyTree, old: PyTree) -> PyTree:
        if isinstance(new, RewardScaler):
            return old._replace(discounted=new.discounted)  # the sum belongs to the episodes that are gone
        return new if isinstance(new, RolloutState) else old

    fresh = algorithm.init(key)
    return jax.tree.map(choose, fresh, state, is_leaf=lambda node: isinstance(node, RolloutState | RewardScaler))


def _plain(state: PyTree) -> PyTree:
    """Typed keys as their integers."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, state)


def _typed(like: jax.Array, leaf: jax.Array) -> jax.Array:
    if not _is_key(like):
        return leaf
    impl = []  # `like` may be abstract, and only a traced key tells its implementation
    jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), like)
    return jax.random.wrap_key_data(leaf, impl=impl[0])


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named(state: PyTree, part: str = "") -> dict[str, jax.Array]:
    """Leaves by their path, which names them in errors and in the files; of a part, with the path to it."""
    begin = f"{part}." if part else ""
    return {
        begin + jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def _verify(path: Path) -> None:
    try:
        digests = dict(json.loads((path / MANIFEST).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path}: {MANIFEST} is missing or broken") from error
    for name, digest in digests.items():
        if not (path / name).is_file():
            raise CheckpointError(f"checkpoint {path}: {name} is missing")
        if _digest(path / name) != digest:
            raise CheckpointError(f"checkpoint {path}: {name} is truncated or corrupt")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
