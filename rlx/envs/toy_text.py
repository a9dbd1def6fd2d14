"""Gymnasium's toy-text environments as finite MDPs, equal to its transition tables entry for entry.

Axes: S states, A actions, K outcomes of an action in a state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlx.envs.tabular import TabularEnv, from_sure_tables, from_tables

LAKES = {
    4: ("SFFF", "FHFH", "FFFH", "HFFG"),
    8: (
        "SFFFFFFF",
        "FFFFFFFF",
        "FFFHFFFF",
        "FFFFFHFF",
        "FFFHFFFF",
        "FHHFFFHF",
        "FHFFHFHF",
        "FFFHFFFG",
    ),
}


def cliff_walking(slippery: bool = False, max_steps: int | None = None) -> TabularEnv:
    """Walk from one end of a cliff to the other (gymnasium's CliffWalking-v1 and CliffWalkingSlippery-v1).

    A grid of 4 rows and 12 columns; the observation is 12 * row + column. It begins at the bottom left and terminates
    at the bottom right; the cliff is between the two. Actions: 0 up, 1 right, 2 down, 3 left; on slippery ground each
    of the direction and its two neighbours with probability 1/3. Reward -1 a step, -100 for a step off the cliff,
    which leads back to the start. Known good: -13 along the edge, -17 along the top.

    Source: Sutton and Barto 2018, example 6.6, as `gymnasium/envs/toy_text/cliffwalking.py`.

    Args:
        slippery: whether steps go astray.
        max_steps: steps in an episode. As in gymnasium there is no limit: a greedy policy that goes round in circles
            does so for ever. Set one to evaluate policies that have not learned yet.
    """
    start, goal = 36, 47
    target = _neighbours(4, 12, [(-1, 0), (0, 1), (1, 0), (0, -1)])
    probability, landing = _astray(target) if slippery else _as_meant(target)
    fell = (landing > start) & (landing < goal)
    next_state, reward = np.where(fell, start, landing), np.where(fell, -100, -1)
    return from_tables(probability, next_state, reward, landing == goal, np.arange(48) == start, max_steps)


def frozen_lake(lake: Sequence[str] = LAKES[4], slippery: bool = True, max_steps: int | None = 100) -> TabularEnv:
    """Cross a frozen lake without falling into a hole (gymnasium's FrozenLake-v1, FrozenLake8x8-v1).

    The observation is columns * row + column. It begins at S and terminates in a hole (H) or at the goal (G), which
    alone has a reward, 1. Actions: 0 left, 1 down, 2 right, 3 up; on slippery ice each of the direction and its two
    neighbours with probability 1/3. Known good: 74 % of the episodes reach the goal in time, 91 %
    on the 8x8 lake in 200 steps.

    Source: `gymnasium/envs/toy_text/frozen_lake.py`.

    Args:
        lake: its rows, of the letters S (start), F (frozen), H and G.
        slippery: whether steps go astray.
        max_steps: steps in an episode; None: no limit.
    """
    letters = np.array([list(row) for row in lake])
    flat, (rows, columns) = letters.ravel(), letters.shape
    target = _neighbours(rows, columns, [(0, -1), (1, 0), (0, 1), (-1, 0)])
    probability, landing = _astray(target) if slippery else _as_meant(target)
    over = np.isin(flat, ["H", "G"])
    next_state = np.where(over[:, None, None], np.arange(flat.size)[:, None, None], landing)
    reward = (flat[landing] == "G") & ~over[:, None, None]
    sure = np.arange(probability.shape[-1]) == 0
    probability = np.where(over[:, None, None], sure, probability)
    start = flat == "S"
    return from_tables(probability, next_state, reward, over[next_state], start / start.sum(), max_steps)


def taxi(max_steps: int | None = 200) -> TabularEnv:
    """Fetch a passenger and bring him where he wants to go (gymnasium's Taxi-v4).

    Five rows and columns with a few walls. The passenger waits at one of four places (R, G, Y, B) or sits in the taxi
    (4); the observation is ((row * 5 + column) * 5 + passenger) * 4 + destination. Actions: 0 south, 1 north, 2 east,
    3 west, 4 pick up, 5 drop off. Reward -1 a step, -10 for a pick-up or drop-off where it cannot be, 20 for the
    right drop-off, which terminates. Known good: 7.9 on average.

    Source: Dietterich 2000, sec. 3.1, as `gymnasium/envs/toy_text/taxi.py`.

    Args:
        max_steps: steps in an episode; None: no limit.
    """
    places = np.array([0, 4, 20, 23])  # of R, G, Y, B: row * 5 + column
    wall_east = np.zeros((5, 5), bool)  # between a cell and the one east of it
    wall_east[:, 4] = wall_east[:2, 1] = wall_east[3:, 0] = wall_east[3:, 2] = True
    wall_west = np.roll(wall_east, 1, axis=1)

    row, column, passenger, destination = np.unravel_index(np.arange(500), (5, 5, 5, 4))
    cell, aboard = 5 * row + column, passenger == 4
    next_cell = np.repeat(cell[:, None], 6, axis=1)
    next_cell[:, 0] += 5 * (row < 4)
    next_cell[:, 1] -= 5 * (row > 0)
    next_cell[:, 2] += ~wall_east[row, column]
    next_cell[:, 3] -= ~wall_west[row, column]

    waits_here = ~aboard & (places[passenger % 4] == cell)
    place = np.argmax(cell[:, None] == places, axis=1)
    at_place = np.isin(cell, places)
    arrives = aboard & (places[destination] == cell)
    next_passenger = np.repeat(passenger[:, None], 6, axis=1)
    next_passenger[:, 4] = np.where(waits_here, 4, passenger)
    next_passenger[:, 5] = np.where(aboard & at_place, place, passenger)

    reward, terminated = np.full((500, 6), -1), np.zeros((500, 6), bool)
    reward[:, 4] = np.where(waits_here, -1, -10)
    reward[:, 5] = np.where(arrives, 20, np.where(aboard & at_place, -1, -10))
    terminated[:, 5] = arrives
    next_state = (5 * next_cell + next_passenger) * 4 + destination[:, None]
    start = ~aboard & (passenger != destination)
    return from_sure_tables(next_state, reward, terminated, start / start.sum(), max_steps)


def _neighbours(rows: int, columns: int, moves: list[tuple[int, int]]) -> np.ndarray:
    """Cells `[S, A]` that each move leads to; the border holds."""
    row, column = np.divmod(np.arange(rows * columns)[:, None], columns)
    down, right = np.array(moves).T
    return (row + down).clip(0, rows - 1) * columns + (column + right).clip(0, columns - 1)


def _as_meant(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability and cell `[S, A, 1]`, where a step goes where it should."""
    return np.ones((*target.shape, 1)), target[..., None]


def _astray(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability and cell `[S, A, 3]`, where a step goes by any of the move before, the move and the one after."""
    moves = (np.arange(4)[:, None] + np.array([-1, 0, 1])) % 4
    return np.full((target.shape[0], 4, 3), 1 / 3), target[:, moves]
