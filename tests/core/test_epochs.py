"""Every row once an epoch, in another order each time."""

import jax
import numpy as np
import pytest

from rlx.core.epochs import next_rows, start_epochs


def draw(num_rows, size, count):
    epochs, rows = start_epochs(num_rows), []
    for key in jax.random.split(jax.random.key(0), count):
        epochs, drawn = jax.jit(next_rows, static_argnums=2)(key, epochs, size)
        rows.append(np.asarray(drawn))
    return np.stack(rows)


def test_each_row_once_an_epoch_in_another_order_each_time():
    rows = draw(12, 3, 12).reshape(3, 12)
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(12), (3, 1)))
    assert len({tuple(epoch) for epoch in rows}) == 3


def test_rows_that_make_no_batch_wait():
    rows = draw(10, 4, 6).reshape(3, 8)
    assert all(len(set(epoch)) == 8 for epoch in rows)


def test_more_rows_than_there_are():
    with pytest.raises(ValueError, match="batch_size=11: there are 10 rows in the data"):
        draw(10, 11, 1)
