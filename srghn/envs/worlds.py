"""The environments that come with srghn: one builder each, and their perturbations.

A builder is called as `build(mode, **kwargs)` and gives a native Gymnasium environment; `make` may
be that of another backend. Its docstring describes the world; the section 'Version history' travels
with every pin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

from srghn.config import Returns
from srghn.envs.switch import ActionOrder, rewired
from srghn.errors import EnvVersionError

Env = gym.Env[Any, Any]
Make = Callable[..., Env]
Dynamics = Mapping[str, Callable[[Any, float], None]]
#: Range of returns, and the highest return of a failed episode.
Scale = tuple[Returns, float]


def make(gymnasium_id: str, **kwargs: Any) -> Env:
    """`gymnasium.make` without the passive checker, which costs time and changes nothing."""
    return gym.make(gymnasium_id, disable_env_checker=True, **kwargs)


def cartpole(mode: str, make: Make = make, **kwargs: Any) -> Env:
    """Balance a pole on a cart: Gymnasium's CartPole-v1, 500 steps, reward 1 a step.

    Observes cart position and velocity, pole angle and angular velocity; pushes left (0) or right
    (1). Mode: normal.

    ## Version history
    * v1: Gymnasium's CartPole-v1 as it is.
    """
    return make("CartPole-v1", **kwargs)


def cartpole_switch(mode: str, make: Make = make, **kwargs: Any) -> Env:
    """CartPole-v1 whose two actions swap their meaning, after Pedersen et al. 2025.

    Modes: normal (0 pushes left, 1 right), flipped (0 pushes right, 1 left). Nothing in the
    observation tells which. Source: arXiv:2512.16406, section on CartPole-Switch.

    ## Version history
    * v1: Gymnasium's CartPole-v1 with modes normal and flipped.
    """
    env = make("CartPole-v1", **kwargs)
    return ActionOrder(env, (1, 0)) if mode == "flipped" else env


def cartpole_rewired(mode: str, make: Make = make, series: int = 0, **kwargs: Any) -> Env:
    """CartPole-v1 in modes that never repeat: observations and actions change their meaning.

    Modes: 0 (as it is) to 63; from 1 on, observations in an order and with signs of their own, and
    an order of the two actions, drawn by (`series`, mode). A phase in each teaches nothing about
    the next: what recovers there is the ability to evolve, not a memory.

    ## Version history
    * v1: Gymnasium's CartPole-v1 with modes 0 to 63.
    """
    return rewired(make("CartPole-v1", **kwargs), series, int(mode))


def lunar_lander(mode: str, make: Make = make, **kwargs: Any) -> Env:
    """Land a rocket on the pad: Gymnasium's LunarLander-v3, 1000 steps, solved at 200.

    Observes position, velocity, angle, angular velocity and two leg contacts; fires nothing (0),
    left (1), main (2) or right engine (3). Mode: normal.

    ## Version history
    * v3: Gymnasium's LunarLander-v3 as it is.
    """
    return make("LunarLander-v3", **kwargs)


def lunar_lander_switch(mode: str, make: Make = make, **kwargs: Any) -> Env:
    """LunarLander-v3 whose action order is turned round, after Pedersen et al. 2025.

    Modes: normal, reversed (action a is action 3 - a: 0 fires right, 1 main, 2 left, 3 nothing).
    Source: arXiv:2512.16406, section on LunarLander-Switch.

    ## Version history
    * v3: Gymnasium's LunarLander-v3 with modes normal and reversed; numbered after it.
    """
    if kwargs.get("continuous"):
        raise EnvVersionError(
            "LunarLanderSwitch-v3 switches the order of discrete actions, got continuous=True; "
            "take LunarLander-v3 for continuous ones"
        )
    env = make("LunarLander-v3", **kwargs)
    return ActionOrder(env, (3, 2, 1, 0)) if mode == "reversed" else env


def lunar_lander_rewired(mode: str, make: Make = make, series: int = 0, **kwargs: Any) -> Env:
    """LunarLander-v3 in modes that never repeat: observations and actions change their meaning.

    Modes: 0 (as it is) to 11; from 1 on, observations in an order and with signs of their own, and
    an order of the four actions, drawn by (`series`, mode).

    ## Version history
    * v3: Gymnasium's LunarLander-v3 with modes 0 to 11; numbered after it.
    """
    if kwargs.get("continuous"):
        raise EnvVersionError(
            "LunarLanderRewired-v3 changes the order of discrete actions, got continuous=True; "
            "take LunarLander-v3 for continuous ones"
        )
    return rewired(make("LunarLander-v3", **kwargs), series, int(mode))


def ant(mode: str, make: Make = make, **kwargs: Any) -> Env:
    """Walk a four-legged body forward: Gymnasium's Ant-v5 on MuJoCo, 1000 steps.

    Observes 105 positions, velocities and contact forces; sets 8 torques in [-1, 1]. Standing
    still scores about 1000. Mode: normal.

    ## Version history
    * v5: Gymnasium's Ant-v5 as it is.
    """
    return make("Ant-v5", **kwargs)


def scale_attribute(name: str) -> Callable[[Any, float], None]:
    """A perturbation that multiplies one attribute of the unwrapped environment."""

    def scale(env: Any, factor: float) -> None:
        setattr(env, name, getattr(env, name) * factor)

    return scale


def _pole(env: Any, *, length: float = 1.0, mass: float = 1.0) -> None:
    env.length *= length
    env.masspole *= mass
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length


def _moon_gravity(env: Any, factor: float) -> None:
    if not -12.0 < env.gravity * factor < 0.0:
        raise EnvVersionError(
            f"LunarLander's gravity must stay between -12 and 0, got {env.gravity} x {factor:g}"
        )
    env.gravity *= factor


def _wind(env: Any, factor: float) -> None:
    """A share of Gymnasium's default wind (15) and turbulence (1.5), which are off by default."""
    env.enable_wind = True
    env.wind_power, env.turbulence_power = 15.0 * factor, 1.5 * factor


def _mass(env: Any, factor: float) -> None:
    env.model.body_mass[:] *= factor
    env.model.body_inertia[:] *= factor


def _friction(env: Any, factor: float) -> None:
    env.model.geom_friction[:, 0] *= factor


def _gravity(env: Any, factor: float) -> None:
    env.model.opt.gravity[:] *= factor


def cartpole_scale(steps: int) -> Scale:
    """One reward a step; an episode that lasts a fifth of its steps has dropped the pole."""
    return Returns(low=0.0, high=float(steps)), steps / 5


def lunar_lander_scale(steps: int) -> Scale:
    """From a crash with engines firing to a clean landing; below 0 nothing has landed well."""
    return Returns(low=-500.0, high=330.0), 0.0


def ant_scale(steps: int) -> Scale:
    """From a fall with high control costs to a fast walk, per 1000 steps; standing is 1 a step."""
    return Returns(low=-float(steps), high=7.0 * steps), steps / 2


CARTPOLE: Dynamics = {
    "pole_length": lambda env, factor: _pole(env, length=factor),
    "pole_mass": lambda env, factor: _pole(env, mass=factor),
    "gravity": scale_attribute("gravity"),
    "force": scale_attribute("force_mag"),
}
LUNAR_LANDER: Dynamics = {"gravity": _moon_gravity, "wind": _wind}
ANT: Dynamics = {"mass": _mass, "friction": _friction, "gravity": _gravity}
