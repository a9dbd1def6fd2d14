"""A trained policy leaves: to NumPy, as a file that needs no JAX, or through `jax.export`."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from rlx.core import numpy_policy
from rlx.core.normalize import Moments
from rlx.envs.vectorize import box_scale
from rlx.nets.actor_critic import LOG_SCALE, Actor, ActorCritic
from rlx.nets.inputs import Input, channels_first, convolutions_for, network_inputs, split_mask
from rlx.types import Algorithm, PyTree, Spaces


def export_numpy(folder: Path, env: Spaces, network: Any, params: PyTree, moments: PyTree = None) -> None:
    """Write `policy.npz` and `policy.py` into a folder: `load("policy.npz")(observation)` acts, with NumPy alone.

    It takes one observation and gives one action in the units of the environment's space, as `act` does to about 1e-5.

    Args:
        folder: made if need be; files of these names are replaced.
        env: what it was trained in, for its spaces.
        network: an `ActorCritic`, or an `Actor` alone.
        params: of the network.
        moments: running statistics of observations, as a state's `observation_moments`.

    Raises:
        ValueError: a network of another kind: `export_jax` takes every one.
        OSError: no space on the disk, or no place to write; files that were there stay.
    """
    if not isinstance(network, ActorCritic | Actor):
        name = type(network).__name__
        raise ValueError(f"{name} cannot be written in NumPy, only ActorCritic and Actor: use export_jax")
    inputs = network_inputs(env.observation_space)
    weights = params["params"]
    arrays = _actor(weights["mlps"]["actor"]) | _statistics(moments, len(inputs))
    for index, part in enumerate(inputs):
        if part.kind == "image":
            arrays |= {f"cnn_{index}_{name}": x for name, x in weights["features"][f"cnn_{index}"].items()}
    action, scale = _action(env.action_space)
    arrays |= scale | weights.get("head", {})  # a NormalHead has a parameter
    spec = action | {
        "head": type(network.head).__name__,
        "log_scale_bounds": LOG_SCALE,
        "inputs": [_input(part) for part in inputs],
        "layers": len(weights["mlps"]["actor"]),
        "activation": network.activation,
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, spec=np.array(json.dumps(spec)), **jax.device_get(arrays))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "policy.py", Path(numpy_policy.__file__).read_bytes())
    _write(folder / "policy.npz", content.getvalue())


def export_jax(file: Path, algorithm: Algorithm, state: PyTree, env: Spaces) -> None:
    """Write the greedy policy, parameters included, as a program that only JAX is needed for, on CPU, GPU and TPU.

    `jax.export.deserialize(file.read_bytes()).call(observation)` gives the action as the policy draws it, for
    observations `[B, ...]` of any B; `rlx.envs.action_to_space` brings it to a space.

    Raises:
        ImportError: flatbuffers is missing: `pip install 'rlx[export]'`.
    """
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    example = jax.tree.map(np.asarray, env.observation_space.sample())
    observation = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch, *x.shape), jax.dtypes.canonicalize_dtype(x.dtype)), example
    )
    act = jax.jit(lambda observation: algorithm.act(state, None, observation))
    program = export.export(act, platforms=("cpu", "cuda", "tpu"))(observation)
    _write(file, bytes(program.serialize()))


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = file.with_suffix(".partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    except OSError as error:
        error.filename = str(file)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _actor(layers: PyTree) -> dict[str, jax.Array]:
    return {f"{name}_{index}": x for index, layer in layers.items() for name, x in layer.items()}


def _statistics(moments: PyTree, count: int) -> dict[str, jax.Array]:
    """Mean and variance of each array of floats."""
    if moments is None:
        return {}
    found = jax.tree.leaves(split_mask(moments)[0], is_leaf=lambda node: node is None or isinstance(node, Moments))
    pairs = {index: m for index, m in zip(range(count), found, strict=True) if m is not None}
    return {f"{name}_{index}": getattr(m, name) for index, m in pairs.items() for name in ("mean", "var")}


def _input(part: Input) -> dict[str, Any]:
    spec: dict[str, Any] = {"kind": part.kind, "sizes": part.sizes, "starts": part.starts, "scale": part.scale}
    if part.kind == "image":
        first = channels_first(part.shape)
        height, width = part.shape[1:] if first else part.shape[:2]
        spec |= {"channels_first": first, "strides": [stride for *_, stride in convolutions_for(height, width)]}
    return spec


def _action(space: gymnasium.Space) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the actor's outputs mean, and for a Box the arrays that scale them."""
    match space:
        case spaces.Box():
            names = ["lowest", "highest", "half", "middle"]
            scale: dict[str, Any] = dict(zip(names, box_scale(space), strict=True))
            return {"action": "box", "shape": space.shape, "dtype": str(space.dtype)}, scale
        case spaces.Discrete():
            sizes, starts, kind = [int(space.n)], [int(space.start)], "one"
        case spaces.MultiDiscrete():
            sizes, starts, kind = np.ravel(space.nvec).tolist(), np.ravel(space.start).tolist(), "several"
        case _:
            count = math.prod(space.shape or ())
            sizes, starts, kind = [2] * count, [0] * count, "several"
    return {"action": kind, "sizes": sizes, "starts": starts, "shape": space.shape, "dtype": str(space.dtype)}, {}
