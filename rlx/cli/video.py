"""Clips of an episode: `rlx eval RUN --render clip.mp4`."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlx.cli.parsing import UsageError
from rlx.envs import action_to_space, to_gymnasium
from rlx.envs.host import Gymnasium
from rlx.types import Algorithm, Env, PyTree

FORMATS = {  # what ffmpeg is told about the output; H.264 for all players wants even sizes, a GIF 256 colours a frame
    ".mp4": "-vf pad=ceil(iw/2)*2:ceil(ih/2)*2 -c:v libx264 -pix_fmt yuv420p -f mp4",
    ".gif": "-filter_complex split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1 -f gif",
}


def ffmpeg() -> str:
    """Give the path of the encoder.

    Raises:
        ImportError: imageio-ffmpeg, which brings it, is missing.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError as error:
        raise ImportError("--render needs imageio-ffmpeg: pip install 'rlx[video]'") from error
    return get_ffmpeg_exe()


def open_stage(env: Env | Gymnasium, file: Path) -> Any:
    """Make the `gymnasium.Env` that is filmed, and draw it once: what cannot work fails before anything is played.

    Args:
        env: a JAX environment or a recipe for gymnasium's own.
        file: where the clip will go; one that is there is replaced when the clip is whole.

    Raises:
        UsageError, ValueError, ImportError: the file's format or folder, the environment's pictures, a missing extra.
    """
    if file.suffix not in FORMATS:
        raise UsageError(f"--render {file}: a clip is {' or '.join(FORMATS)}")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(
            f"--render {file}: " + ("is a folder" if file.is_dir() else f"there is no folder {file.parent}")
        )
    ffmpeg()
    stage = _drawn(env) if isinstance(env, Gymnasium) else to_gymnasium(env, render_mode="rgb_array")
    try:
        stage.reset(seed=0)
        stage.render()
    except Exception as error:  # whatever stands between an environment and its pictures: pygame, a display, drivers
        raise UsageError(f"the environment cannot be drawn: {' '.join(str(error).split())}") from error
    return stage


def _drawn(recipe: Gymnasium) -> Any:
    env = recipe.one()
    modes = env.metadata.get("render_modes", [])
    env.close()
    if "rgb_array" not in modes:
        there = f"it has {', '.join(modes)}" if modes else "it has none"
        raise UsageError(f"{recipe.make} has no render mode rgb_array, which a clip needs: {there}")
    return dataclasses.replace(recipe, kwargs={**recipe.kwargs, "render_mode": "rgb_array"}).one()


def film(stage: Any, file: Path, algorithm: Algorithm, state: PyTree, greedy: bool, seed: int) -> str:
    """Play one episode into a clip, and say how it went.

    Args:
        stage: a `gymnasium.Env`, from `open_stage`.
        file: where to.
        algorithm: whose `act` plays.
        state: of one seed.
        greedy: take the mode of the policy, else sample.
        seed: of the environment and the sampling.

    Raises:
        OSError: the file cannot be written; none is left.
    """
    rewards: list[float] = []
    to_env, act, key = action_to_space(stage.action_space), jax.jit(algorithm.act), jax.random.key(seed)

    def frames() -> Iterator[np.ndarray]:
        observation, over = stage.reset(seed=seed)[0], False
        yield stage.render()
        while not over:
            action_key = None if greedy else jax.random.fold_in(key, len(rewards))
            action = to_env(np.asarray(act(state, action_key, observation)))
            observation, reward, terminated, truncated, _ = stage.step(action[()])
            rewards.append(float(reward))
            over = terminated or truncated
            yield stage.render()

    write_clip(file, frames(), stage.metadata.get("render_fps", 30))
    stage.close()
    return f"return {sum(rewards):.2f} in {len(rewards)} steps: {file}"


def write_clip(file: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    """Encode frames `[H, W, 3]` uint8 as they come; the file is there when it is whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    first = next(frames)
    size = f"{first.shape[1]}x{first.shape[0]}"
    source = f"-v error -y -f rawvideo -pix_fmt rgb24 -s {size} -r {fps} -i -"
    partial.touch()
    command = [ffmpeg(), *source.split(), *FORMATS[file.suffix].split(), str(partial.absolute())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _feed(process, itertools.chain([first], frames))
        errors = process.communicate()[1].decode(errors="replace").strip()
        if process.returncode:
            raise OSError(*_reason(process.returncode, errors), str(file))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _feed(process: subprocess.Popen[bytes], frames: Iterator[np.ndarray]) -> None:
    assert process.stdin
    try:
        for frame in frames:
            process.stdin.write(np.ascontiguousarray(frame).data)
    except BrokenPipeError:  # it gave up: its exit status says why
        pass
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _reason(status: int, errors: str) -> tuple[int, str]:
    """Give errno and words for ffmpeg's exit status: 256 - errno where the system refused something."""
    number = 256 - status
    if 0 < number < 128:
        return number, os.strerror(number)
    return 0, f"ffmpeg failed: {errors.splitlines()[-1] if errors else f'status {status}'}"
