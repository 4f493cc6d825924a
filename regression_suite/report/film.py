"""A filmstrip of one episode, drawn from what the world observes. No renderer, no window.

That is what the policy saw, unless wrappers hide or change some of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from regression_suite.episodes import Played, answer
from regression_suite.report.svg import Drawing
from srghn.envs import EnvVersion
from srghn.errors import FAILURES, EvaluationError
from srghn.evaluation.base import PolicyFunction
from srghn.evaluation.policies.forward import describe
from srghn.interrupt import raise_interrupt

Frame = NDArray[np.float32]
FRAMES = 8


@dataclass(frozen=True)
class Film:
    """Evenly spaced observations (frames, d) of one episode, the first and the last included.

    `crash` says why the episode crashed; '' where it did not. Then the film ends there.
    """

    seed: int
    total: float
    length: int
    steps: tuple[int, ...]
    frames: Frame
    pictures: tuple[Markup, ...]
    crash: str = ""


def worst_seed(played: Played) -> int:
    """The seed of the candidate's worst episode."""
    return int(played.seeds[int(np.argmin(played.returns))])


def record(policy: PolicyFunction, version: EnvVersion, mode: str, seed: int) -> Film | None:
    """Play one episode alone and keep `FRAMES` moments; None for a world nobody can draw yet.

    An episode that crashes is filmed up to there: whose it is, the gate has counted already.
    """
    artist = ARTISTS.get(version.id.rpartition("-v")[0])
    if artist is None:
        return None
    rewards: list[float] = []
    crash = ""
    with version.make(mode) as env:
        seen = _watched(env.unwrapped)
        try:
            _play(policy, env, seed, rewards)
        except FAILURES as error:
            raise_interrupt(error)
            crash = describe(error)
    seen = [frame for frame in seen if np.isfinite(frame).all()]
    if not seen:
        return None
    steps = np.unique(np.linspace(0, len(seen) - 1, FRAMES).round().astype(int))
    frames = np.stack([seen[step] for step in steps])
    pictures = tuple(
        artist(frame, f"step {step}") for step, frame in zip(steps.tolist(), frames, strict=True)
    )
    shown = tuple(steps.tolist())
    return Film(seed, sum(rewards), len(seen) - 1, shown, frames, pictures, crash)


def _play(policy: PolicyFunction, env: Any, seed: int, rewards: list[float]) -> None:
    """One episode; its rewards are added to `rewards`, so that they last if it crashes."""
    observation, _ = env.reset(seed=seed)
    state, ended = np.zeros((1, int(getattr(policy, "state_size", 0))), np.float32), False
    while not ended:
        row = np.asarray(observation, np.float32)
        if np.isnan(row).any():
            raise EvaluationError("an observation is NaN")
        actions, state = answer(policy, row[None], state)
        observation, reward, terminated, truncated, _ = env.step(actions[0])
        rewards.append(float(reward))
        ended = terminated or truncated


def _watched(world: Any) -> list[Frame]:
    """The observations that a world will give, before any wrapper sees them."""
    seen: list[Frame] = []

    def noting(call: Callable[..., Any], first: bool) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            found = call(*args, **kwargs)
            if first:
                seen.clear()  # a lander steps once within its reset
            seen.append(np.array(found[0], np.float32))
            return found

        return noted

    world.reset, world.step = noting(world.reset, True), noting(world.step, False)
    return seen


def cart_pole(frame: Frame, title: str) -> Markup:
    """Cart position and pole angle; the track ends where an episode does, at 2.4 m."""
    position, angle = float(frame[0]), float(frame[2])
    drawing = Drawing(120, 92, (-2.9, 2.9), (-0.5, 3.95), (0, 0, 0, 0))
    drawing.segment(drawing.px(-2.4), drawing.py(0), drawing.px(2.4), drawing.py(0), "axis")
    for limit in (-2.4, 2.4):
        drawing.segment(
            drawing.px(limit), drawing.py(-0.15), drawing.px(limit), drawing.py(0.15), "axis"
        )
    drawing.bar(position - 0.45, 0, position + 0.45, 0.5, "fill champ")
    tip = position + 2.8 * np.sin(angle), 0.5 + 2.8 * np.cos(angle)
    drawing.line((position, tip[0]), (0.5, tip[1]), "pole cand")
    return drawing.svg(f"Cart and pole at {title}", "frame")


def lunar_lander(frame: Frame, title: str) -> Markup:
    """Position relative to the pad, body angle, and which legs touch the ground."""
    x, y, angle, legs = float(frame[0]), float(frame[1]), float(frame[4]), frame[6:8]
    drawing = Drawing(120, 92, (-1.3, 1.3), (-0.3, 1.7), (0, 0, 0, 0))
    drawing.segment(0, drawing.py(-0.06), 120, drawing.py(-0.06), "axis")
    drawing.bar(-0.2, -0.12, 0.2, -0.06, "fill champ")

    def at(right: float, up: float) -> tuple[float, float]:
        cos, sin = np.cos(angle), np.sin(angle)
        return x + right * cos - up * sin, y + right * sin + up * cos

    hull = [
        at(*corner) for corner in ((-0.12, 0), (-0.07, 0.17), (0.07, 0.17), (0.12, 0), (-0.12, 0))
    ]
    drawing.line((p[0] for p in hull), (p[1] for p in hull), "pole cand")
    for side, touches in zip((-1, 1), legs, strict=True):
        knee, foot = at(side * 0.1, 0), at(side * 0.17, -0.1)
        style = "pole champ" if touches > 0 else "thin cand"
        drawing.line((knee[0], foot[0]), (knee[1], foot[1]), style)
    return drawing.svg(f"Lander at {title}", "frame")


#: A leg's direction from the torso, and the axis of its ankle, as in MuJoCo's ant.xml.
_LEGS = (
    ((1, 1), (-1, 1)), ((-1, 1), (1, 1)), ((-1, -1), (-1, 1)), ((1, -1), (1, 1)),
)  # fmt: skip
_WITH_PLACE = (29, 107)  # numbers that Ant observes if its place is among them


def ant(frame: Frame, title: str) -> Markup:
    """Torso and legs from the side, at their height; the place along the way is not observed."""
    state = (frame[2:] if len(frame) in _WITH_PLACE else frame).astype(np.float64)
    drawing = Drawing(120, 92, (-1.4, 1.4), (-0.35, 1.8), (0, 0, 0, 0))
    drawing.segment(0, drawing.py(0), 120, drawing.py(0), "axis")

    def trace(points: NDArray[np.float64], style: str) -> None:
        x, y, z = points.T  # a look from the side and a little above
        drawing.line(x + 0.45 * y, state[0] + z + 0.25 * y, style)

    for (_, side), leg in zip((way for way, _ in _LEGS), legs(state), strict=True):
        trace(leg, "pole cand" if side < 0 else "thin cand")  # the nearer legs are thicker
    drawing.bar(-0.16, state[0] - 0.13, 0.16, state[0] + 0.13, "fill champ")
    ahead = np.array([[0.0, 0.0, 0.0], [0.35, 0.0, 0.0]])
    trace(_turned(ahead, _upright(state)), "thin cand")
    return drawing.svg(f"Ant at {title}", "frame")


def legs(state: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Torso, hip, knee and foot (4, 3) of each leg, in metres from the torso's middle."""
    found = []
    for number, (way, about) in enumerate(_LEGS):
        hip, ankle = state[5 + 2 * number], state[6 + 2 * number]
        out = np.array([*way, 0.0])
        swing = np.array([np.cos(hip / 2), 0.0, 0.0, np.sin(hip / 2)])
        axis = np.array([*about, 0.0]) / np.sqrt(2.0)
        bend = np.array([np.cos(ankle / 2), *(np.sin(ankle / 2) * axis)])
        knee = 0.2 * out + _turned(0.2 * out, swing)
        foot = knee + _turned(_turned(0.4 * out, bend), swing)
        found.append(_turned(np.stack([0.0 * out, 0.2 * out, knee, foot]), _upright(state)))
    return found


def _upright(state: NDArray[np.float64]) -> NDArray[np.float64]:
    """The torso's turn as a unit quaternion."""
    turn = state[1:5]
    length = float(np.linalg.norm(turn))
    return turn / length if length > 0 else np.array([1.0, 0.0, 0.0, 0.0])


def _turned(point: NDArray[np.float64], turn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (..., 3) turned by a unit quaternion (w, x, y, z)."""
    w, along = turn[0], turn[1:]
    found: NDArray[np.float64] = point + 2 * np.cross(along, np.cross(along, point) + w * point)
    return found


#: An environment's id without its version -> what draws it: another's may only begin like it.
ARTISTS: dict[str, Callable[[Frame, str], Markup]] = {
    **dict.fromkeys(("CartPole", "CartPoleSwitch", "CartPoleRewired"), cart_pole),
    **dict.fromkeys(
        ("LunarLander", "LunarLanderContinuous", "LunarLanderSwitch", "LunarLanderRewired"),
        lunar_lander,
    ),
    "Ant": ant,
}
