"""Checkpoints: bit for bit, whole or not there, and every kind of damage named."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx.core.checkpoint import MANIFEST, CheckpointError, checkpoint_steps, load_checkpoint, save_checkpoint


class State(NamedTuple):
    key: jax.Array
    keys: jax.Array
    params: dict[str, Any]
    none: None
    empty: jax.Array
    count: jax.Array


def state(seed=0, width=3):
    key = jax.random.key(seed)
    layer = {"kernel": jax.random.normal(key, (width, 4)), "flag": jnp.array([True, False])}
    params = {"half": jnp.bfloat16([1.5, -0.1]), "layer": layer}
    return State(key, jax.random.split(key, 3), params, None, jnp.zeros((2, 0), jnp.int8), jnp.int32(2**30 + 1))


def assert_same(x, y):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One whole checkpoint; damage copies of it."""
    return save_checkpoint(tmp_path_factory.mktemp("run"), 7, state())


@pytest.mark.parametrize("like", [lambda: state(1), lambda: jax.eval_shape(state)], ids=["state", "shapes"])
def test_round_trip_bit_for_bit(saved, like):
    assert_same(load_checkpoint(saved, like()), state())


def test_a_part_of_a_state(saved):
    """As one run begins with the parameters of another, whatever else is in that one's state."""
    like = jax.eval_shape(state)
    assert_same(load_checkpoint(saved, like.params, "params"), state().params)
    assert_same(load_checkpoint(saved, like.params["layer"], "params.layer"), state().params["layer"])
    with pytest.raises(CheckpointError, match=r"params\.layer\.kernel"):
        load_checkpoint(saved, state(width=2).params, "params")
    with pytest.raises(CheckpointError, match="absent"):
        load_checkpoint(saved, like.params, "para")


def test_a_loaded_key_draws_the_same(saved):
    loaded = load_checkpoint(saved, state(1))
    np.testing.assert_array_equal(jax.random.normal(loaded.key), jax.random.normal(state().key))


def test_no_code_in_the_files(saved):
    files = [path for path in saved.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".py", ".npy")]
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]  # how pickles begin
    listed = json.loads((saved / MANIFEST).read_text())["sha256"]
    assert {*listed} == {str(path.relative_to(saved)) for path in files} - {MANIFEST}


def test_keeps_the_last_and_the_pinned(tmp_path):
    for step in (5, 10, 20, 100):
        save_checkpoint(tmp_path, step, {"x": jnp.ones(1)}, keep=2, pinned=frozenset({5}))
    assert checkpoint_steps(tmp_path) == [5, 20, 100]
    save_checkpoint(tmp_path, 20, {"x": jnp.zeros(1)}, keep=2)
    assert checkpoint_steps(tmp_path) == [5, 20]  # 100 was of a past that the run went back from
    assert load_checkpoint(tmp_path / "20", {"x": jnp.ones(1)})["x"] == 0  # written over


def test_a_save_cut_short_leaves_the_older_and_is_cleaned_up(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"x": jnp.ones(1)})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 2, {"x": jnp.zeros(1)})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["1", "partial-2"]
    assert checkpoint_steps(tmp_path) == [1]
    assert load_checkpoint(tmp_path / "1", {"x": jnp.ones(1)})["x"] == 1
    save_checkpoint(tmp_path, 3, {"x": jnp.ones(1)})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["1", "3"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
def test_damage_to_any_file_is_named(saved, tmp_path, damage):
    for file in [path.relative_to(saved) for path in saved.rglob("*") if path.is_file()]:
        copy = shutil.copytree(saved, tmp_path / "copy" / "7")
        damage(copy / file)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(copy, state())
        assert str(copy) in str(error.value)
        assert str(file) in str(error.value)
        shutil.rmtree(copy)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"step": 1', "[]", "3", '{"sha256": 3}', '{"sha256": null}'])
def test_a_broken_manifest_is_named(saved, tmp_path, text):
    copy = shutil.copytree(saved, tmp_path / "7")
    (copy / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is missing or broken"):
        load_checkpoint(copy, state())


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="12"):
        load_checkpoint(tmp_path / "12", state())


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (state(width=5), "params.layer.kernel"),
        (state()._replace(count=jnp.float32(0)), "count"),
        (state()._replace(none=jnp.ones(1)), "none"),
        (state()._replace(params={"half": jnp.bfloat16([0, 0])}), "params.layer.flag"),
    ],
    ids=["shape", "dtype", "more", "fewer"],
)
def test_another_configuration_is_named(saved, other, name):
    with pytest.raises(CheckpointError, match=f"{name} is .* another algorithm or configuration"):
        load_checkpoint(saved, other)


def test_keys_of_another_implementation(tmp_path):
    key = jax.random.key(0, impl="rbg")
    assert_same(load_checkpoint(save_checkpoint(tmp_path, 1, {"key": key}), {"key": key}), {"key": key})


def test_going_back_to_an_earlier_step_keeps_what_was_written(tmp_path):
    for step in (10, 20, 5):
        path = save_checkpoint(tmp_path, step, {"x": jnp.ones(1)}, keep=2)
        assert path.is_dir()
    assert checkpoint_steps(tmp_path) == [5]  # what came after belongs to a past that was left
