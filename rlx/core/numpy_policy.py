"""A trained policy in NumPy alone: this file and the `.npz` beside it are all that it needs.

    from policy import load

    act = load("policy.npz")
    action = act(observation)  # greedy; act(observation, np.random.default_rng(0)) draws from the policy

Written by `rlx export`, copied as it is. One observation in, as the environment gives it; one action out, in the units
of the environment's action space.
"""

import json

import numpy as np


def load(file):
    """Give the policy in a file of `rlx export`: `(observation, generator=None) -> action`."""
    with np.load(file, allow_pickle=False) as arrays:
        arrays = dict(arrays)
    spec = json.loads(str(arrays.pop("spec")))

    def act(observation, generator=None):
        observation, mask = split_mask(observation)
        return decide(spec, arrays, outputs(spec, arrays, observation), mask, generator)

    return act


def split_mask(observation):
    """Take the action mask off an observation `{"observation", "action_mask"}`."""
    if isinstance(observation, dict) and set(observation) == {"observation", "action_mask"}:
        return observation["observation"], np.asarray(observation["action_mask"], bool)
    return observation, None


def leaves(observation):
    """Arrays of an observation, those of a dict in the order of their names."""
    if isinstance(observation, dict):
        return [leaf for name in sorted(observation) for leaf in leaves(observation[name])]
    if isinstance(observation, tuple):
        return [leaf for part in observation for leaf in leaves(part)]
    return [observation]


def outputs(spec, arrays, observation):
    """What the actor's last layer gives."""
    parts = []
    for index, (part, leaf) in enumerate(zip(spec["inputs"], leaves(observation), strict=True)):
        x = np.asarray(leaf)
        if f"mean_{index}" in arrays:
            x = (x.astype(np.float32) - arrays[f"mean_{index}"]) / np.sqrt(arrays[f"var_{index}"] + 1e-8)
            x = x.clip(-10, 10)
        parts.append(encode(part, arrays, x, index))
    x = np.concatenate(parts)
    layers = spec["layers"]
    for layer in range(layers):
        x = x @ arrays[f"kernel_{layer}"] + arrays[f"bias_{layer}"]
        if layer < layers - 1:
            x = ACTIVATIONS[spec["activation"]](x)
    return x


def encode(part, arrays, x, index):
    """One array of an observation as a vector."""
    if part["kind"] == "choices":
        numbers = np.ravel(x) - part["starts"]
        return np.concatenate([np.arange(n) == i for i, n in zip(numbers, part["sizes"], strict=True)]).astype(
            np.float32
        )
    x = x.astype(np.float32) * np.float32(part["scale"])
    if part["kind"] == "numbers":
        return x.ravel()
    if part["channels_first"]:
        x = np.moveaxis(x, 0, -1)
    x = x.reshape(*x.shape[:2], -1)
    for layer, stride in enumerate(part["strides"]):
        x = convolve(x, arrays[f"cnn_{index}_kernel_{layer}"], stride) + arrays[f"cnn_{index}_bias_{layer}"]
        x = np.maximum(x, 0)
    return x.ravel()


def convolve(x, kernel, stride):
    """`[H, W, C]` by a kernel `[h, w, C, F]`, without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]
    return np.einsum("yxchw,hwcf->yxf", windows, kernel, optimize=True)


def decide(spec, arrays, x, mask, generator):
    """Turn the actor's outputs into an action: the most probable, or one drawn with `generator`."""
    if spec["action"] == "box":
        x = numbers(spec, arrays, x, generator)
        action = x.clip(arrays["lowest"], arrays["highest"]) * arrays["half"] + arrays["middle"]
        return action.astype(spec["dtype"]).reshape(spec["shape"])
    choices, start = [], 0
    for size in spec["sizes"]:
        logits = x[start : start + size]
        if mask is not None and mask[start : start + size].any():
            logits = np.where(mask[start : start + size], logits, -np.inf)
        if generator is not None:
            logits = logits + generator.gumbel(size=size)
        choices.append(int(np.argmax(logits)))
        start += size
    action = np.array(choices, spec["dtype"]) + np.array(spec["starts"], spec["dtype"])
    return int(action[0]) if spec["action"] == "one" else action.reshape(spec["shape"])


def numbers(spec, arrays, x, generator):
    """A continuous action as the policy draws it; one that draws from nothing has its action alone."""
    log_scale = arrays.get("log_scale")
    if spec["head"] == "TanhNormalHead":
        x, log_scale = np.split(x, 2)
        log_scale = log_scale.clip(*spec["log_scale_bounds"])
    if generator is not None and log_scale is not None:
        x = x + np.exp(log_scale) * generator.standard_normal(x.shape).astype(np.float32)
    return x if spec["head"] == "NormalHead" else np.tanh(x)


ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}
