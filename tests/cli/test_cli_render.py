"""`rlx eval RUN --render`: clips that play, and one line for what cannot work."""

import os
import re
import stat
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from cli_runs import SEEDS, run, tree

from rlx.cli import video
from rlx.cli.video import write_clip

pytestmark = pytest.mark.slow
pytest.importorskip("imageio_ffmpeg", reason="no encoder: pip install 'rlx[video]'")
pytest.importorskip("pygame", reason="pygame is missing: pip install 'rlx[classic]'")


def read(file):
    """Size and frames per second as a player sees them, and the frames `[N, H, W, 3]`."""
    command = [video.ffmpeg(), "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    played = subprocess.run(command, capture_output=True, check=True)
    about = played.stderr.decode()
    width, height = map(int, re.search(r", (\d+)x(\d+)", about).groups())
    fps = float(re.search(r"([0-9.]+) fps", about)[1])
    return (width, height), fps, np.frombuffer(played.stdout, np.uint8).reshape(-1, height, width, 3)


def evaluate(run_folder, *flags):
    return run("eval", run_folder, "--episodes", "2", *flags)


def refused(capsys, *argv):
    """The one line that a refusal is, said before anything was played."""
    assert evaluate(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("kind", ["mp4", "gif"])
@pytest.mark.parametrize("flags", [(), ("--gymnasium",)], ids=["jax", "gymnasium"])
def test_a_clip_plays(reference, tmp_path, capsys, kind, flags):
    before, file = tree(reference), tmp_path / f"clip.{kind}"
    file.write_text("an older one")
    assert evaluate(reference, "--render", file, "--seed", "3", *flags) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    steps = int(told.split(" in ")[1].split()[0])
    assert told == f"clip of seed 0, greedy, return {steps:.2f} in {steps} steps: {file}"
    size, fps, frames = read(file)
    assert size == (600, 400)
    assert fps == pytest.approx(50, abs=0.1)
    assert len(frames) == pytest.approx(steps + 1, abs=1)
    assert frames[0].mean() > 200  # white
    assert np.any(frames[0] != frames[-1])
    assert list(tmp_path.iterdir()) == [file]
    assert tree(reference) == before


def test_another_seed_plays(reference, tmp_path, capsys):
    last = SEEDS - 1
    assert evaluate(reference, "--render", tmp_path / "a.gif", "--render-seed", str(last), "--sampled") == 0
    assert f"clip of seed {last}, sampled" in capsys.readouterr().out
    assert "seeds of the run are [0, 1, 2]" in refused(
        capsys, reference, "--render", tmp_path / "b.gif", "--render-seed", "9"
    )


def test_what_cannot_work_is_said_first(reference, tmp_path, capsys, monkeypatch):
    assert "a clip is .mp4 or .gif" in refused(capsys, reference, "--render", tmp_path / "clip.avi")
    assert "there is no folder" in refused(capsys, reference, "--render", tmp_path / "not" / "clip.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert "is a folder" in refused(capsys, reference, "--render", tmp_path / "folder.mp4")
    file = tmp_path / "clip.mp4"
    with monkeypatch.context() as patch:
        patch.setitem(gymnasium.envs.classic_control.CartPoleEnv.metadata, "render_modes", ["human"])
        line = refused(capsys, reference, "--gymnasium", "--render", file)
    assert "CartPole-v1 has no render mode rgb_array, which a clip needs: it has human" in line
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert "pip install 'rlx[video]'" in refused(capsys, reference, "--render", file)
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.setattr(video, "ffmpeg", lambda: "")
    assert "pip install 'rlx[classic]'" in refused(capsys, reference, "--render", file)
    assert not file.exists()


def test_a_full_disk_leaves_the_old_file(reference, tmp_path, capsys, monkeypatch):
    """The encoder ends as ffmpeg does on a full disk: some bytes written, status 256 - ENOSPC."""
    encoder = tmp_path / "ffmpeg"
    encoder.write_text('#!/bin/sh\nfor file; do :; done\nhead -c 100000 > "$file"\nexit 228\n')
    encoder.chmod(encoder.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(video, "ffmpeg", lambda: str(encoder))
    file = tmp_path / "clip.mp4"
    file.write_text("an older one")
    assert evaluate(reference, "--render", file) == 1
    assert capsys.readouterr().err == f"rlx: {file}: No space left on device\n"
    assert file.read_text() == "an older one"
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "ffmpeg"]


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_frames_come_back(tmp_path, kind):
    """Odd sizes too: an mp4 is padded to even ones."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    write_clip(tmp_path / f"a.{kind}", iter(np.tile(colours[:, None, None], (1, 31, 41, 1))), 10)
    *_, frames = read(tmp_path / f"a.{kind}")
    np.testing.assert_allclose(frames[:3, 5, 5], colours, atol=12)
    assert frames.shape[1:3] == ((32, 42) if kind == "mp4" else (31, 41))


def test_an_interrupted_clip_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((32, 32, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clip(tmp_path / "a.mp4", frames(), 10)
    assert not os.listdir(tmp_path)
