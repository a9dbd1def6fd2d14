"""What the defects of bug_zoo.py are put into: environments that can be changed, short runs, and the picture."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rlx
from rlx.envs import probes

DISCOUNT = 0.9
KEYS = jax.random.split(jax.random.key(0), 4)


class Found(NamedTuple):
    """What was measured, done right and with the defect."""

    what: str
    right: float
    wrong: float
    curves: tuple[Any, Any] | None = None  # right, wrong: one row, or several
    drawn: str | None = None  # what the curves show, where it is something else


class Changed:
    """An environment whose steps are changed by `step(key, out) -> out`, its observations by `see(observation)`."""

    def __init__(self, env, step: Callable = lambda key, out: out, see: Callable = lambda observation: observation):
        self.env, self.change, self.see = env, step, see
        self.observation_space, self.action_space = env.observation_space, env.action_space

    def reset(self, key):
        """Begin an episode."""
        state, observation = self.env.reset(key)
        return state, self.see(observation)

    def step(self, key, state, action):
        """Advance by one action."""
        out = self.env.step(key, state, action)
        return self.change(key, out._replace(observation=self.see(out.observation)))


class Worlds(probes.Clock):
    """A world is rich or poor by chance: 1 or 0 is seen, and is the reward, for ever. Time is up after 10 steps."""

    def reset(self, key):
        """Make a world: its state is the time and what it pays."""
        rich = jax.random.bernoulli(key).astype(jnp.float32)
        return (jnp.int32(0), rich), rich[None]

    def step(self, key, state, action):
        """Pay."""
        time, rich = state
        out = super().step(key, time, action)
        return out._replace(state=(out.state, rich), observation=rich[None], reward=rich)


def small_ppo(env, optimizer=None, **changes) -> tuple[rlx.Algorithm, rlx.Network]:
    """PPO with a small network, and the network."""
    network = rlx.nets.actor_critic(env, (16,))
    config = rlx.PPOConfig(num_steps=20, num_epochs=4, num_minibatches=2, discount=DISCOUNT, trace=1.0, **changes)
    return rlx.ppo(env, network, optimizer or optax.adam(2e-2), config), network


def small_dqn(env, **changes) -> rlx.Algorithm:
    """DQN with a small network, in 7 environments at once."""
    defaults = {"num_envs": 7, "num_steps": 1, "gradient_steps": 4, "prefill": 700, "replay_size": 7000, "huber": None}
    config = rlx.DQNConfig(**defaults | changes, discount=DISCOUNT)
    return rlx.dqn(env, rlx.nets.q_network(env, (16,)), optax.adam(1e-2), config)


def watch(algorithm: rlx.Algorithm, updates: int, look: Callable) -> Any:
    """Train, and give what `look(state, metrics)` says after every update."""

    def one(state, _):
        state, metrics = algorithm.step(state)
        return state, look(state, metrics)

    run = rlx.jit(lambda key: jax.lax.scan(one, algorithm.init(key), length=updates)[1])
    return jax.device_get(run(KEYS[0]))


def learnt_values(env, updates: int, observation: float) -> np.ndarray:
    """What PPO holds an observation to be worth after every update."""
    algorithm, network = small_ppo(env)
    return watch(algorithm, updates, lambda state, _: network.apply(state.learner.params, jnp.array([observation]))[1])


def copied(state: Any) -> Any:
    """A copy to keep: drivers donate what they are given."""
    return jax.tree.map(jnp.copy, state)


def draw(found: dict[str, Found], picture: str) -> None:
    """Draw the curves of the defects that have some."""
    from matplotlib.figure import Figure

    shown = {number: result for number, result in found.items() if result.curves}
    figure = Figure(figsize=(12.0, 6.4), dpi=150, layout="constrained")
    panels = figure.subplots(2, max(1, -(-len(shown) // 2)), squeeze=False).ravel()
    for axes, (number, result) in zip(panels, shown.items(), strict=False):
        for color, curves in zip(("C0", "C1"), result.curves or (), strict=True):
            axes.plot(np.atleast_2d(curves).T, color=color, linewidth=0.9)
        axes.set_title(f"{number}: {result.drawn or result.what}", fontsize=8)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.suptitle("blue: right; orange: with the defect; against updates (B4: environment steps)")
    figure.savefig(picture)
    print(f"curves: {picture}")
