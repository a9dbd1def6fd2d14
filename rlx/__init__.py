"""rlx: reinforcement learning in JAX. An algorithm is a NamedTuple of pure functions over a NamedTuple of state."""

import gc

from rlx import envs, lm, nets, ops
from rlx.algorithms.a2c import A2CConfig, A2CState, a2c, a2c_loss
from rlx.algorithms.best_of_n import BestOfNConfig, BestOfNState, best_of_n
from rlx.algorithms.dpo import DPOConfig, DPOState, dpo
from rlx.algorithms.dqn import DQNConfig, DQNState, dqn, dqn_loss
from rlx.algorithms.grpo import GRPO_PRESETS, GRPOConfig, GRPOState, grpo, grpo_loss
from rlx.algorithms.online_dpo import OnlineDPOConfig, OnlineDPOState, online_dpo
from rlx.algorithms.ppo import PPOConfig, PPOState, ppo, ppo_loss
from rlx.algorithms.reinforce import ReinforceConfig, ReinforceState, reinforce, reinforce_loss
from rlx.algorithms.reward_model import (
    RewardModelConfig,
    RewardModelState,
    comparison_loss,
    rankings_loss,
    reward_model,
    scorer_params,
)
from rlx.algorithms.rlhf import RLHFConfig, RLHFState, actor_loss, critic_loss, rlhf
from rlx.algorithms.sac import (
    SACConfig,
    SACState,
    sac,
    sac_actor_loss,
    sac_critic_loss,
    sac_target,
    temperature_loss,
    value_and_entropy,
)
from rlx.algorithms.sft import SFTConfig, SFTState, sft, sft_loss
from rlx.algorithms.tabular import TabularConfig, TabularState, td_control
from rlx.algorithms.td3 import TD3Config, TD3State, td3, td3_actor_loss, td3_critic_loss, td3_target
from rlx.algorithms.trpo import TRPOConfig, TRPOState, trpo
from rlx.core.checkpoint import (
    CheckpointError,
    checkpoint_steps,
    load_checkpoint,
    restart_environments,
    save_checkpoint,
)
from rlx.core.evaluate import Episodes, evaluate
from rlx.core.export import export_jax, export_numpy
from rlx.core.learn import gradient_step, init_learner, minibatches
from rlx.core.replay import Batch, Priorities, Replay
from rlx.core.rollout import RolloutState, rollout, start_rollout, uniform_policy
from rlx.core.sweep import rank, select, sweep
from rlx.core.train import chunks, compile_steps, jit, over_seeds, train
from rlx.envs import make, vectorize
from rlx.lm.feedback import ptx_loss
from rlx.types import Algorithm, Env, Learner, Network, Step, Transition, VectorEnv

__version__ = "0.1.0"

# What is imported by now, some 130,000 objects of JAX's, stays: every full collection would look through it, and the
# one at the end of the process takes 0.3 s over it.
gc.freeze()

__all__ = [
    "GRPO_PRESETS",
    "A2CConfig",
    "A2CState",
    "Algorithm",
    "Batch",
    "BestOfNConfig",
    "BestOfNState",
    "CheckpointError",
    "DPOConfig",
    "DPOState",
    "DQNConfig",
    "DQNState",
    "Env",
    "Episodes",
    "GRPOConfig",
    "GRPOState",
    "Learner",
    "Network",
    "OnlineDPOConfig",
    "OnlineDPOState",
    "PPOConfig",
    "PPOState",
    "Priorities",
    "RLHFConfig",
    "RLHFState",
    "ReinforceConfig",
    "ReinforceState",
    "Replay",
    "RewardModelConfig",
    "RewardModelState",
    "RolloutState",
    "SACConfig",
    "SACState",
    "SFTConfig",
    "SFTState",
    "Step",
    "TD3Config",
    "TD3State",
    "TRPOConfig",
    "TRPOState",
    "TabularConfig",
    "TabularState",
    "Transition",
    "VectorEnv",
    "a2c",
    "a2c_loss",
    "actor_loss",
    "best_of_n",
    "checkpoint_steps",
    "chunks",
    "comparison_loss",
    "compile_steps",
    "critic_loss",
    "dpo",
    "dqn",
    "dqn_loss",
    "envs",
    "evaluate",
    "export_jax",
    "export_numpy",
    "gradient_step",
    "grpo",
    "grpo_loss",
    "init_learner",
    "jit",
    "lm",
    "load_checkpoint",
    "make",
    "minibatches",
    "nets",
    "online_dpo",
    "ops",
    "over_seeds",
    "ppo",
    "ppo_loss",
    "ptx_loss",
    "rank",
    "rankings_loss",
    "reinforce",
    "reinforce_loss",
    "restart_environments",
    "reward_model",
    "rlhf",
    "rollout",
    "sac",
    "sac_actor_loss",
    "sac_critic_loss",
    "sac_target",
    "save_checkpoint",
    "scorer_params",
    "select",
    "sft",
    "sft_loss",
    "start_rollout",
    "sweep",
    "td3",
    "td3_actor_loss",
    "td3_critic_loss",
    "td3_target",
    "td_control",
    "temperature_loss",
    "train",
    "trpo",
    "uniform_policy",
    "value_and_entropy",
    "vectorize",
]
