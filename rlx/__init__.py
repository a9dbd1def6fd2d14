"""rlx: reinforcement learning in JAX. An algorithm is a NamedTuple of pure functions over a NamedTuple of state."""

from rlx import envs, nets, ops
from rlx.algorithms.ppo import PPOConfig, PPOState, ppo, ppo_loss
from rlx.core.evaluate import Episodes, evaluate
from rlx.core.learn import gradient_step, init_learner, minibatches
from rlx.core.rollout import RolloutState, rollout, start_rollout
from rlx.core.train import chunks, over_seeds, train
from rlx.envs import make, vectorize
from rlx.types import Algorithm, Env, Learner, Network, Step, Transition, VectorEnv

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "Env",
    "Episodes",
    "Learner",
    "Network",
    "PPOConfig",
    "PPOState",
    "RolloutState",
    "Step",
    "Transition",
    "VectorEnv",
    "chunks",
    "envs",
    "evaluate",
    "gradient_step",
    "init_learner",
    "make",
    "minibatches",
    "nets",
    "ops",
    "over_seeds",
    "ppo",
    "ppo_loss",
    "rollout",
    "start_rollout",
    "train",
    "vectorize",
]
