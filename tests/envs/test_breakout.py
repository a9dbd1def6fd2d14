"""Breakout by hand, and step for step beside the MinAtar package where it is installed."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlx
from rlx.envs.breakout import Breakout, State
from rlx.types import Step

KEY = jax.random.key(0)
ENV = Breakout(sticky=0.0)
STAY, LEFT, RIGHT = 0, 1, 2
STEP = jax.jit(ENV.step)


def at(row, column, down, right, paddle=4, bricks=True, strike=False, time=0):
    """A state with the ball in a place, going `down` (1, or -1 up) and `right` (1, or -1 left)."""
    bricks = np.broadcast_to(bricks, (3, 10))
    numbers = [jnp.int32(n) for n in (row, column, down, right, row, column, paddle)]
    return State(*numbers, jnp.array(bricks), jnp.array(strike), jnp.int32(0), jnp.int32(time))


def ball(step):
    """Row, column, and velocities of the ball."""
    return tuple(int(n) for n in step.state[:4])


def one_brick(row, column):
    bricks = np.zeros((3, 10), bool)
    bricks[row - 1, column] = True
    return bricks


def test_ball_flies_on_diagonals_and_leaves_a_trail():
    step = STEP(KEY, at(5, 3, 1, 1), STAY)
    assert ball(step) == (6, 4, 1, 1)
    assert (step.state.trail_row, step.state.trail_column) == (5, 3)
    assert (float(step.reward), bool(step.terminated), bool(step.truncated)) == (0, False, False)


@pytest.mark.parametrize(("column", "right"), [(9, 1), (0, -1)])
def test_walls_turn_the_ball_round(column, right):
    assert ball(STEP(KEY, at(5, column, 1, right), STAY)) == (6, column, 1, -right)


def test_ceiling_turns_the_ball_down():
    assert ball(STEP(KEY, at(0, 5, -1, 1, bricks=False), STAY)) == (0, 6, 1, 1)
    assert ball(STEP(KEY, at(0, 9, -1, 1, bricks=False), STAY)) == (0, 9, 1, -1)  # the wall as well


def test_brick_breaks_and_turns_the_ball_round():
    step = STEP(KEY, at(4, 5, -1, 1), STAY)  # onto the brick in row 3, column 6
    assert ball(step) == (4, 6, 1, 1)  # in its row still, one column on
    assert float(step.reward) == 1
    expected = np.ones((3, 10), bool)
    expected[2, 6] = False
    np.testing.assert_array_equal(step.state.bricks, expected)
    assert step.state.strike
    assert not STEP(KEY, step.state, STAY).state.strike


def test_two_bricks_are_never_broken_in_succession():
    step = STEP(KEY, at(4, 5, -1, 1, strike=True), STAY)
    assert ball(step) == (3, 6, -1, 1)  # through it
    assert float(step.reward) == 0
    assert np.all(step.state.bricks)
    assert step.state.strike


@pytest.mark.parametrize(
    ("column", "right", "paddle", "action", "expected"),
    [
        (4, 1, 4, STAY, (8, 5, -1, 1)),  # paddle under the ball: reflected
        (4, 1, 5, STAY, (8, 5, -1, -1)),  # paddle where it lands: back where it came from
        (4, 1, 6, LEFT, (8, 5, -1, -1)),  # the paddle moves first
        (4, 1, 5, LEFT, (8, 5, -1, 1)),
        (9, 1, 9, STAY, (8, 9, -1, -1)),  # in the corner: wall and paddle
    ],
)
def test_paddle_returns_the_ball(column, right, paddle, action, expected):
    step = STEP(KEY, at(8, column, 1, right, paddle), action)
    assert ball(step) == expected
    assert not step.terminated


def test_ball_is_lost_beside_the_paddle():
    step = STEP(KEY, at(8, 4, 1, 1, paddle=7), STAY)
    assert ball(step)[0] == 9
    assert step.terminated
    assert not step.truncated


def test_both_flags():
    assert STEP(KEY, at(8, 4, 1, 1, paddle=7, time=999), STAY).terminated
    assert STEP(KEY, at(8, 4, 1, 1, paddle=7, time=999), STAY).truncated
    assert not STEP(KEY, at(8, 4, 1, 1, time=998), STAY).truncated
    assert Breakout(max_steps=3).step(KEY, at(8, 4, 1, 1, time=2), STAY).truncated


def test_bricks_come_back_when_the_ball_does():
    step = STEP(KEY, at(4, 5, -1, 1, bricks=one_brick(3, 6)), STAY)
    assert float(step.reward) == 1
    assert not np.any(step.state.bricks)  # not yet
    for row, paddle in ((8, 4), (8, 9)):  # also where the ball is lost
        step = STEP(KEY, at(row, 4, 1, 1, paddle, bricks=False), STAY)
        assert np.all(step.state.bricks)
    assert not np.all(STEP(KEY, at(8, 4, 1, 1, bricks=one_brick(1, 0)), STAY).state.bricks)


def test_paddle_stays_on_the_board():
    for paddle, action, expected in [(0, LEFT, 0), (9, RIGHT, 9), (4, LEFT, 3), (4, RIGHT, 5), (4, STAY, 4)]:
        assert STEP(KEY, at(5, 5, 1, 1, paddle), action).state.paddle == expected


def test_observation_has_a_channel_each():
    observation = np.array(STEP(KEY, at(5, 3, 1, 1), LEFT).observation)
    expected = np.zeros((10, 10, 4), np.uint8)
    expected[9, 3, 0] = expected[6, 4, 1] = expected[5, 3, 2] = 255
    expected[1:4, :, 3] = 255
    np.testing.assert_array_equal(observation, expected)
    assert ENV.observation_space.contains(observation)


def test_serves_come_from_both_sides():
    state, observation = jax.vmap(ENV.reset)(jax.random.split(KEY, 4096))
    assert {*map(tuple, np.stack(state[:4], 1).tolist())} == {
        (3, 0, 1, 1),
        (3, 9, 1, -1),
    }
    assert abs(np.mean(state.ball_column) / 9 - 0.5) < 0.04  # 4 standard errors
    assert np.all(state.bricks)
    assert np.all(np.sum(observation == 255, (1, 2)) == np.array([1, 1, 1, 30]))


def test_actions_stick():
    state = at(5, 5, 1, 1)._replace(last_action=jnp.int32(LEFT))
    assert Breakout(sticky=1.0).step(KEY, state, RIGHT).state.paddle == 3
    step = jax.vmap(Breakout().step, (0, None, None))(jax.random.split(KEY, 4096), state, RIGHT)
    assert abs(np.mean(step.state.paddle == 3) - 0.1) < 0.02  # 4 standard errors
    np.testing.assert_array_equal(step.state.last_action, np.where(step.state.paddle == 3, LEFT, RIGHT))


def test_types_hold():
    assert rlx.make("Breakout-MinAtar") == Breakout()
    state, observation = jax.eval_shape(ENV.reset, KEY)
    step = jax.eval_shape(ENV.step, KEY, state, jnp.int32(0))
    flag = jax.ShapeDtypeStruct((), bool)
    assert step == Step(state, observation, jax.ShapeDtypeStruct((), jnp.float32), flag, flag, {})
    leaves = jax.tree.leaves(ENV.reset(KEY))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


def test_steps_equal_minatar():
    """10,000 steps, each from MinAtar's own state, by a player who follows the ball in most of its moves."""
    try:
        theirs = importlib.import_module("minatar.environments.breakout").Env()
    except ImportError:
        pytest.skip("the MinAtar package is not installed: Breakout was NOT compared with it")
    random = theirs.random = np.random.RandomState(0)
    rows, states = [], []
    for _ in range(10_000):
        if theirs.terminal:
            theirs.reset()
            if random.rand() < 0.5:  # else no wall is ever cleared
                theirs.brick_map *= random.rand(10, 10) < 0.05
        down, right = {0: (-1, -1), 1: (-1, 1), 2: (1, 1), 3: (1, -1)}[theirs.ball_dir]
        now = [theirs.ball_y, theirs.ball_x, down, right, theirs.last_y, theirs.last_x, theirs.pos]
        states.append((*now, theirs.brick_map[1:4] == 1, theirs.strike, 0, 0))
        towards = RIGHT if theirs.ball_x > theirs.pos else LEFT if theirs.ball_x < theirs.pos else STAY
        action = towards if random.rand() < 0.8 else random.randint(3)
        reward, terminal = theirs.act([0, 1, 3][action])
        rows.append((action, theirs.state(), reward, terminal, theirs.brick_map[1:4].sum()))
    state = State(*(jnp.array(np.stack(field)) for field in zip(*states, strict=True)))
    action, observation, reward, terminal, bricks = (np.array(column) for column in zip(*rows, strict=True))
    ours = jax.jit(jax.vmap(ENV.step, (None, 0, 0)))(KEY, state, jnp.array(action))
    np.testing.assert_array_equal(ours.observation, 255 * observation)
    np.testing.assert_array_equal(ours.reward, reward)
    np.testing.assert_array_equal(ours.terminated, terminal)
    # and the state that the next step builds on is theirs too
    for field, name in enumerate(State._fields[:9]):
        follows = ~terminal[:-1]
        np.testing.assert_array_equal(ours.state[field][:-1][follows], state[field][1:][follows], err_msg=name)

    # what the comparison has to have met
    assert terminal.sum() > 100
    assert reward.sum() > 300
    assert np.sum(np.diff(bricks) > 20) > 10  # walls came back
    assert np.sum(bricks == 0) > 10
