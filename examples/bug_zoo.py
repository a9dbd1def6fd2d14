"""Eighteen defects that were found in public reinforcement-learning code, switched on one at a time.

Run it: `python examples/bug_zoo.py` (a minute or two; it prints as it goes and saves bug_zoo.png), or some of them:
`python examples/bug_zoo.py B1 B8`.

None of these stops a program, and most still learn something: a curve goes up, only less far. What finds them is a
number that is known beforehand: the value of a clock, a count, the direction of a gradient. Each function below does a
thing right and then wrong, says what came out, and fails unless the first is right and the second shows the defect.
The library has no switch for any of them. They are switched on from outside: by a wrapper round an environment, changed
flags, another configuration, a state of which something is missing.
"""

import argparse
import tempfile
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _bug_zoo import DISCOUNT, KEYS, Changed, Found, Worlds, copied, draw, learnt_values, small_dqn, small_ppo, watch

import rlx
from rlx.core.normalize import init_moments, init_reward_scaler, normalize_observation, update_reward_scaler
from rlx.core.replay import Replay, sample_rows
from rlx.envs import cartpole, probes


def b1(updates: int) -> Found:
    """A time limit is taken for a termination: no bootstrap there.

    A clock pays 1 for ever and is only cut off: V = 1 / (1 - discount) = 10. With one flag for both, V is the mean of
    what is left until the time limit.
    """
    merged = Changed(probes.Clock(), lambda key, out: out._replace(terminated=out.truncated))
    right, wrong = (learnt_values(env, updates, 0.0) for env in (probes.Clock(), merged))
    left = (1 - DISCOUNT ** np.arange(1, 11)) / (1 - DISCOUNT)
    assert abs(right[-1] - 10) < 0.3, right
    assert abs(wrong[-1] - left.mean()) < 0.5, (wrong, left.mean())
    return Found("value of a clock that never stops (10)", right[-1], wrong[-1], (right, wrong))


def b2(updates: int) -> Found:
    """The next episode's first observation is stored as the successor of the last.

    A rich world is worth 10. Where time is up, the defect bootstraps from a world that is rich or poor by chance.
    """

    def step(key, out):
        return out._replace(observation=jnp.where(out.truncated, env.reset(key)[1], out.observation))

    env = Worlds()
    right, wrong = (learnt_values(e, updates, 1.0) for e in (env, Changed(env, step)))
    half = right[updates // 2 :].mean(), wrong[updates // 2 :].mean()
    assert abs(half[0] - 10) < 0.5, right
    assert half[1] < 8, wrong
    return Found("value of a world that is rich for ever (10)", half[0], half[1], (right, wrong))


def b3(updates: int) -> Found:
    """Truncation is never set: advantages run on into the next episode.

    A critic that says 0 makes the advantage of an episode's last step its reward, 1. Without the flag what the next
    episode earns is added.
    """
    envs = rlx.vectorize(probes.Clock(), 4)
    policy = rlx.uniform_policy(envs.action_space)
    _, rows, _ = rlx.rollout(envs, policy, (), rlx.start_rollout(envs, KEYS[0]), KEYS[1], 40)
    zero, never = jnp.zeros_like(rows.reward), jnp.zeros_like(rows.truncated)
    right, wrong = (
        float(rlx.ops.gae(rows.reward, zero, zero, rows.terminated, flag, DISCOUNT, 0.95)[9].mean())
        for flag in (rows.truncated, never)
    )
    assert right == 1
    assert wrong > 5
    return Found("advantage of an episode's last step (1)", right, wrong)


def b4(updates: int) -> Found:
    """The automatic reset restores a stored first state: every episode is the same.

    Eight poles fall again and again: from how many places did they start?
    """
    envs = rlx.vectorize(rlx.envs.CartPole(max_steps=10), 8)
    stored, first = envs.reset(KEYS[0])

    def step(keys, state, action):
        _, _, out = envs.step(keys, state, action)
        where = lambda new, old: jnp.where((out.terminated | out.truncated).reshape(8, *[1] * (old.ndim - 1)), new, old)  # noqa: E731
        return *jax.tree.map(where, (stored, first), (out.state, out.observation)), out

    def starts(envs):
        begun = rlx.start_rollout(envs, KEYS[0])
        _, rows, _ = rlx.rollout(envs, rlx.uniform_policy(envs.action_space), (), begun, KEYS[1], 100)
        done = np.array(rows.terminated | rows.truncated)
        seen = np.array(rows.observation)
        return [len(np.unique(seen[1 : t + 1][done[:t]], axis=0)) for t in range(1, 100)]

    right, wrong = starts(envs), starts(envs._replace(step=step))
    assert right[-1] >= 70  # an episode lasts 10 steps at most
    assert wrong[-1] == 8
    return Found("different starts after a reset", right[-1], wrong[-1], (right, wrong))


def b5(updates: int) -> Found:
    """The key is replaced by a constant: all seeds are one run.

    Four seeds learn to balance a pole; how many different networks are there in the end? The error bars are 0.
    """
    env = rlx.envs.CartPole()
    algorithm, _ = small_ppo(env)
    constant = algorithm._replace(init=lambda key: algorithm.init(jax.random.key(0)))

    def networks(algorithm):
        states, metrics = rlx.jit(jax.vmap(lambda key: rlx.train(algorithm, key, updates)))(KEYS)
        flat = np.concatenate([np.reshape(leaf, (4, -1)) for leaf in jax.tree.leaves(states.learner.params)], axis=1)
        return len(np.unique(flat, axis=0)), np.where(metrics["episodes"] > 0, metrics["episode_return"], np.nan)

    (right, curves), (wrong, same) = networks(algorithm), networks(constant)
    assert (right, wrong) == (4, 1)
    return Found("different networks from 4 seeds", right, wrong, (curves, same), "return of 4 seeds")


def b6(updates: int) -> Found:
    """What is called a clip of the gradient's norm clips every element by itself.

    The gradient is turned: cosine between it and the step that is taken. Nor is the norm what the name says.
    """
    slope = jnp.array([0.1, 1.0, 10.0, 100.0])

    def step(clip):
        optimizer = optax.chain(clip, optax.sgd(1.0))
        learner = rlx.init_learner(jnp.zeros(4), optimizer)
        return -rlx.gradient_step(lambda params: (params @ slope, {}), optimizer, learner)[0].params

    norm = jnp.linalg.norm
    right, wrong = step(optax.clip_by_global_norm(0.5)), step(optax.clip(0.5))
    cosines = [float(slope @ x / norm(slope) / norm(x)) for x in (right, wrong)]
    assert abs(cosines[0] - 1) < 1e-5
    assert abs(norm(right) - 0.5) < 1e-5
    assert cosines[1] < 0.7
    assert norm(wrong) > 0.8
    return Found("cosine of the step and the gradient (1)", cosines[0], cosines[1])


def b7(updates: int) -> Found:
    """A key is used twice: the evaluation and the training after it draw the same.

    Share of random actions that are alike in both: a half by chance. `jax.debug_key_reuse` finds it.
    """
    envs = rlx.vectorize(rlx.envs.CartPole(), 8)
    policy = rlx.uniform_policy(envs.action_space)
    begun = rlx.start_rollout(envs, KEYS[0])
    play = jax.jit(lambda key: rlx.rollout(envs, policy, (), begun, key, 50)[1].action)
    right, wrong = (float(jnp.mean(play(a) == play(b))) for a, b in ((KEYS[1], KEYS[2]), (KEYS[1], KEYS[1])))
    found = False
    with jax.debug_key_reuse(True):
        key = jax.random.key(1)
        play(key)
        try:
            play(key)
        except jax.errors.KeyReuseError:
            found = True
    assert abs(right - 0.5) < 0.15
    assert wrong == 1
    assert found
    return Found("share of actions alike in two draws (0.5)", right, wrong)


def b8(updates: int) -> Found:
    """`steps % interval == 0`, where steps grow by the number of environments, is seldom true.

    The target network is due every 100 environment steps, of which 7 are taken at a time. The remainder is 0 only every
    700: old targets, a value that lags behind the clock's 10. Counting gradient steps, or asking whether the interval
    was crossed, cannot miss.
    """
    rounds, per_round = 5 * updates, 4
    steps = 7 * np.arange(1, rounds + 1)
    crossed, modulo = steps // 100 > (steps - 7) // 100, steps % 100 == 0
    curves, copies = [], []
    for rounds_between in (14, 1 + int(np.argmax(modulo))):
        algorithm = small_dqn(probes.Clock(), target_every=rounds_between * per_round)
        values, targets = watch(algorithm, rounds, lambda state, metrics: (metrics["q_value"], state.target_params))
        moved = [np.diff(leaf, axis=0).reshape(rounds - 1, -1).any(axis=1) for leaf in jax.tree.leaves(targets)]
        curves.append(values)
        copies.append(np.any(moved, axis=0).sum())
    assert copies == [crossed.sum(), modulo.sum()], copies
    assert curves[0][-1] > 2 * curves[1][-1]
    return Found(
        f"value of the clock (10) after {len(steps)} rounds", curves[0][-1], curves[1][-1], (curves[0], curves[1])
    )


def b9(updates: int) -> Found:
    """A batch is drawn without replacement from the whole replay: every draw looks at all rows.

    Operations of a draw of 32 rows by the compiler's count: a replay of 1,000,000 rows against one of 10,000.
    """

    def cost(capacity, draw):
        analysis = jax.jit(draw).lower(KEYS[0], jnp.ones(capacity)).compile().cost_analysis()
        return (analysis or {})["flops"]

    def right(key, rows):
        row = rlx.Transition(*[rows[:, None]] * 6)
        return sample_rows(key, Replay(row, jnp.int32(0), jnp.int32(rows.size)), (32,))

    def wrong(key, rows):
        return jax.random.choice(key, rows.size, (32,), replace=False, p=rows / rows.size)

    ratios = [cost(1_000_000, draw) / cost(10_000, draw) for draw in (right, wrong)]
    assert ratios[0] == 1
    assert ratios[1] > 50
    return Found("cost of a draw when the replay grows 100 times (1)", ratios[0], ratios[1])


def b10(updates: int) -> Found:
    """The state that is kept as the best is the one from before the interval whose evaluation was best.

    The best evaluation is written down; what does the state that was kept for it get in the same episodes?
    """
    env = rlx.envs.CartPole(max_steps=200)
    algorithm, _ = small_ppo(env)
    play = rlx.jit(lambda state: rlx.evaluate(algorithm, env, state, KEYS[1], 20).episode_return.mean())
    before, best, kept = algorithm.init(KEYS[0]), -np.inf, []
    for state, _ in rlx.chunks(algorithm, copied(before), updates, every=max(1, updates // 8)):
        score = float(play(state))
        if score > best:
            best, kept = score, [copied(state), before]
        before = copied(state)
    right, wrong = (float(play(state)) for state in kept)
    assert right == best
    assert wrong < best
    return Found(f"return of the state kept for a best of {best:.1f}", right, wrong)


def b11(updates: int) -> Found:
    """A lambda-return takes the value of one state later than it should.

    Five states in a row, reward 1 at the end: V(first) = discount^4. Values are set to their targets until they stay.
    """
    reward, ends = jnp.array([0.0, 0, 0, 0, 1]), jnp.array([False, False, False, False, True])

    def settle(late):
        def target(_, value):
            following = jnp.concatenate([value[1 + late :], jnp.zeros(1 + late)])
            return value + rlx.ops.gae(reward, value, following, ends, jnp.zeros(5, bool), DISCOUNT, 0.5)

        return float(jax.lax.fori_loop(0, 50, target, jnp.zeros(5))[0])

    right, wrong = settle(0), settle(1)
    assert abs(right - DISCOUNT**4) < 1e-5
    assert abs(wrong - DISCOUNT**4) > 0.1
    return Found("value of the first of five states (0.656)", right, wrong)


def b12(updates: int) -> Found:
    """The entropy is computed by log(softmax): 0 times minus infinity is NaN.

    One logit is 200 above the other: the policy is certain, its entropy is 0.
    """
    logits = jnp.array([0.0, 200.0])

    def naive(logits):
        p = jax.nn.softmax(logits)
        return -jnp.sum(p * jnp.log(p))

    with jax.debug_nans(False):
        entropy = lambda logits: rlx.ops.Categorical(logits).entropy()  # noqa: E731
        (right, slope), (wrong, no_slope) = (jax.value_and_grad(f)(logits) for f in (entropy, naive))
    assert right == 0
    assert jnp.all(jnp.isfinite(slope))
    assert jnp.isnan(wrong)
    assert jnp.all(jnp.isnan(no_slope))
    return Found("entropy of a certain policy (0)", abs(right), wrong)


def b13(updates: int) -> Found:
    """The step that a vector environment spends on a reset is stored as a transition.

    Gymnasium's NEXT_STEP mode ignores the action after the end of an episode. How many of 1000 rows are not what
    CartPole does with that observation and that action?
    """

    def ghosts(observation, action, after):
        def step(x, action):
            return rlx.envs.CartPole().step(KEYS[0], cartpole.State(*x, time=jnp.int32(0)), action).observation

        true = jax.jit(jax.vmap(jax.vmap(step)))(jnp.array(observation), jnp.array(action))
        return int(np.any(np.abs(true - np.array(after)) > 1e-4, axis=-1).sum())

    envs = rlx.vectorize(rlx.envs.gymnasium_vector("CartPole-v1", vectorization_mode="sync"), 4)
    policy = rlx.uniform_policy(envs.action_space)
    _, rows, _ = rlx.rollout(envs, policy, (), rlx.start_rollout(envs, KEYS[0]), KEYS[1], 250)

    raw = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="sync")
    seen = [raw.reset(seed=0)[0].copy()]
    for action in np.array(rows.action):
        seen.append(raw.step(action)[0].copy())
    raw.close()
    right, wrong = (
        ghosts(rows.observation, rows.action, rows.next_observation),
        ghosts(seen[:-1], rows.action, seen[1:]),
    )
    assert right == 0
    assert wrong > 10
    return Found("rows of 1000 whose action was ignored (0)", right, wrong)


def b14(updates: int) -> Found:
    """The policy is saved without the statistics that normalised its observations.

    Return of the greedy policy while it learns, with its statistics and with fresh ones. Observations are 5 more than
    CartPole's, as numbers in some other unit are.
    """
    env = Changed(rlx.envs.CartPole(max_steps=200), see=lambda observation: observation + 5.0)
    algorithm, _ = small_ppo(env, normalize_observation=True)

    def look(state, _):
        lost = state._replace(observation_moments=init_moments((1,)))
        return [rlx.evaluate(algorithm, env, s, KEYS[1], 16).episode_return.mean() for s in (state, lost)]

    right, wrong = watch(algorithm, updates, look)
    half = right[updates // 2 :].mean(), wrong[updates // 2 :].mean()
    assert half[0] > 80, right
    assert half[1] < 40, wrong
    return Found("return, mean of the second half (at most 200)", half[0], half[1], (right, wrong))


def b15(updates: int) -> Found:
    """The reward normaliser sets its sum to 0 before it adds the last reward, not after.

    An episode ends with the reward 10: with what does the next one begin? (Setting to 0 one step early is the same as
    being told of the end one step early.)
    """
    reward, done = jnp.array([[0.0], [0.0], [10.0]]), jnp.array([[False], [False], [True]])
    right, wrong = (
        float(update_reward_scaler(init_reward_scaler(1), reward, flags, DISCOUNT).discounted[0])
        for flags in (done, jnp.roll(done, -1))
    )
    assert right == 0
    assert wrong == 10
    return Found("sum with which an episode begins (0)", right, wrong)


def b16(updates: int) -> Found:
    """The first observation reaches the network as it is, not normalised.

    Largest number that the network sees at first, where observations are 19 or 21: inputs of that size saturate it.
    """
    far = Changed(probes.ObservationReward(), see=lambda observation: observation + 20.0)
    algorithm, _ = small_ppo(far, normalize_observation=True)
    state = algorithm.init(KEYS[0])
    inputs = normalize_observation(state.observation_moments, state.rollout.observation), state.rollout.observation
    right, wrong = (float(jnp.abs(x).max()) for x in inputs)
    assert right < 3
    assert wrong == 21
    return Found("largest of the first inputs (about 1)", right, wrong)


def b17(updates: int) -> Found:
    """A run is resumed from its parameters alone.

    The optimiser's moments, the replay, the share of random actions and the key begin anew. Return of the updates after
    the break; a whole state goes on as if nothing had been, to the bit.
    """
    config = {"epsilon_steps": 7 * updates, "epsilon_end": 0.0, "target_every": 8}
    algorithm = small_dqn(probes.ObservationActionReward(), **config)
    go_on = rlx.compile_steps(algorithm, jax.eval_shape(algorithm.init, KEYS[0]), updates)
    half, first = go_on(algorithm.init(KEYS[0]))
    with tempfile.TemporaryDirectory() as folder:
        path = rlx.save_checkpoint(Path(folder), updates, half)
        whole = rlx.load_checkpoint(path, jax.eval_shape(algorithm.init, KEYS[0]))
    params = copied(half.learner.params)
    alone = algorithm.init(KEYS[1])
    alone = alone._replace(learner=alone.learner._replace(params=params), target_params=copied(params))
    rest, right, wrong = (np.array(go_on(state)[1]["episode_return"]) for state in (half, whole, alone))
    assert np.array_equal(right, rest)
    few = updates // 4
    assert wrong[:few].mean() < right[:few].mean() - 0.3
    curves = [np.concatenate([first["episode_return"], part]) for part in (right, wrong)]
    return Found("return right after the break (1)", right[:few].mean(), wrong[:few].mean(), (curves[0], curves[1]))


def b18(updates: int) -> Found:
    """A hyperparameter is accepted and does nothing.

    The weight of the critic's loss is doubled. Adam divides by the gradient's size: where actor and critic share no
    weights the factor cancels, to the bit. In plain gradient descent it counts. Largest change of any parameter.
    """

    def change(optimizer):
        def run(coef):
            algorithm, _ = small_ppo(probes.Clock(), optimizer, value_coef=coef)
            return rlx.train(algorithm, KEYS[0], 2)[0].learner.params

        gaps = jax.tree.map(lambda x, y: jnp.abs(x - y).max(), *map(rlx.jit(run), (0.5, 1.0)))
        return float(max(jax.tree.leaves(gaps)))

    right, wrong = change(optax.sgd(1e-2)), change(optax.adam(2e-2, eps=1e-30))
    assert right > 0.01
    assert wrong == 0
    return Found("largest change of a parameter (above 0)", right, wrong)


DEFECTS = [b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16, b17, b18]


def main(names: list[str], updates: int, picture: str) -> None:
    """Show the defects, then a table and the curves."""
    chosen = {f"B{i}": show for i, show in enumerate(DEFECTS, 1) if not names or f"B{i}" in names}
    found = {}
    for name, show in chosen.items():
        found[name] = show(updates)
        what, right, wrong, *_ = found[name]
        print(f"{name}: {what}: right {right:.3g}, with the defect {wrong:.3g}", flush=True)
    print(f"\n{'':3} {'right':>8} {'defect':>8}")
    for name, show in chosen.items():
        defect = (show.__doc__ or "").splitlines()[0]
        print(f"{name:3} {found[name].right:8.3g} {found[name].wrong:8.3g}  {defect}")
    draw(found, picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = [f"B{i}" for i in range(1, len(DEFECTS) + 1)]
    parser.add_argument("names", nargs="*", metavar="B1 ... B18", help="which to show; all if none is given")
    parser.add_argument("--updates", type=int, default=60, help="length of the runs that learn something; 40 or more")
    parser.add_argument("--picture", default="bug_zoo.png", help="where to save the curves")
    arguments = parser.parse_args()
    if arguments.updates < 40:
        parser.error("--updates below 40 are too few to tell right from wrong")
    if not {*arguments.names} <= {*choices}:
        parser.error(f"the defects are {', '.join(choices)}")
    main(arguments.names, arguments.updates, arguments.picture)
