# mypy: disable-error-code="no-untyped-def"
"""CartPole and an MLP policy fused into one compiled loop, sixteen episodes abreast.

The physics is Gymnasium's `CartPoleEnv.step`, operation for operation in float64, with `sin` and
`cos` from the same C library; the policy sees the state rounded to float32, as there. Two lanes
share a seat: they play episodes of one individual, whose weights the seat holds, packed in the
order in which the loop reads them, so a weight is loaded once for two steps. A lane whose episode
ends takes the next one. A lane's result depends on nothing in the other lanes. Where a loop's sums
must stay in registers it is spelt in the vectors of `srghn.lanes`.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srghn.compiled import TANH_LIMIT, TANH_P, TANH_Q, compiled
from srghn.lanes import (
    HALF,
    WIDTH,
    above,
    add,
    div,
    fma,
    larger,
    load,
    load_twice,
    mul,
    sincos,
    smaller,
    splat,
    store,
    sub,
)

#: Activation name -> code known to the kernel. All are those of `torch.nn`, within a few ulp.
ACTIVATIONS = {"tanh": 0, "relu": 1, "sigmoid": 2, "silu": 3, "elu": 4}


def packing(widths: tuple[int, ...]) -> NDArray[np.int64]:
    """Positions of an MLP's flat parameters in the order in which `_dense` reads them.

    `widths` are the layers' sizes, inputs first. Flat parameters are, layer by layer, `weight`
    (out, in) row-major, then `bias` (out,): `torch.nn.Linear` in `named_parameters()` order.
    """
    order: list[NDArray[np.int64]] = []
    start = 0
    for n_in, n_out in itertools.pairwise(widths):
        weight = start + np.arange(n_out * n_in, dtype=np.int64).reshape(n_out, n_in)
        bias = start + n_out * n_in + np.arange(n_out, dtype=np.int64)
        first = 0
        while first < n_out:
            block = slice(first, first + _block(n_out - first))
            order += [bias[block], weight[block].T.ravel()]
            first = block.stop
        start += n_out * (n_in + 1)
    return np.concatenate(order)


def _block(left: int) -> int:
    """Outputs computed together when `left` remain: enough to hide the latency of an fma."""
    return 4 if left >= 4 else 2 if left >= 2 else 1


@compiled
def _tanh(x):
    x = larger(smaller(x, splat(TANH_LIMIT)), splat(-TANH_LIMIT))
    z = mul(x, x)
    p = fma(splat(TANH_P[4]), z, splat(TANH_P[3]))
    p = fma(fma(fma(p, z, splat(TANH_P[2])), z, splat(TANH_P[1])), z, splat(TANH_P[0]))
    q = fma(splat(TANH_Q[4]), z, splat(TANH_Q[3]))
    q = fma(fma(fma(q, z, splat(TANH_Q[2])), z, splat(TANH_Q[1])), z, splat(TANH_Q[0]))
    return div(mul(x, p), q)


@compiled
def _activate(rows, first, end, activation):
    """By `ACTIVATIONS`; with t = tanh(x / 2), sigmoid is (1 + t) / 2 and expm1 2 t / (1 - t)."""
    one, zero, half = splat(np.float32(1.0)), splat(np.float32(0.0)), splat(np.float32(0.5))
    if activation == 0:
        for row in range(first, end):
            store(rows, row, _tanh(load(rows, row)))
    elif activation == 1:
        for row in range(first, end):
            store(rows, row, larger(load(rows, row), zero))
    else:
        for row in range(first, end):
            x = load(rows, row)
            t = _tanh(mul(x, half))
            gate = larger(mul(add(one, t), half), zero)  # t may be an ulp below -1
            y = gate if activation == 2 else mul(x, gate)
            if activation == 4:
                y = above(x, zero, x, div(add(t, t), sub(one, t)))
            store(rows, row, y)


@compiled
def _dense(packed, k, rows, x, y, n_in, n_out):
    """One layer, from `rows[x:x + n_in]` to `rows[y:y + n_out]`; returns the next `k`.

    Each output is its bias plus its inputs in order, one fma each, whatever block it falls in.
    """
    end = y + n_out
    while y + 4 <= end:
        a, b = load_twice(packed, k), load_twice(packed, k + 1)
        c, d = load_twice(packed, k + 2), load_twice(packed, k + 3)
        for i in range(n_in):
            k += 4
            v = load(rows, x + i)
            a, b = fma(load_twice(packed, k), v, a), fma(load_twice(packed, k + 1), v, b)
            c, d = fma(load_twice(packed, k + 2), v, c), fma(load_twice(packed, k + 3), v, d)
        k += 4
        store(rows, y, a), store(rows, y + 1, b), store(rows, y + 2, c), store(rows, y + 3, d)
        y += 4
    while y + 2 <= end:
        a, b = load_twice(packed, k), load_twice(packed, k + 1)
        for i in range(n_in):
            k += 2
            v = load(rows, x + i)
            a, b = fma(load_twice(packed, k), v, a), fma(load_twice(packed, k + 1), v, b)
        k += 2
        store(rows, y, a), store(rows, y + 1, b)
        y += 2
    if y < end:
        a = load_twice(packed, k)
        for i in range(n_in):
            k += 1
            a = fma(load_twice(packed, k), load(rows, x + i), a)
        k += 1
        store(rows, y, a)
    return k


@compiled
def _forward(packed, rows, widths, activation):
    """The network on the observations in the first rows; returns the first row of its outputs."""
    k, x, last = 0, 0, widths.size - 2
    for layer in range(last + 1):
        n_in, n_out = widths[layer], widths[layer + 1]
        k = _dense(packed, k, rows, x, x + n_in, n_in, n_out)
        x += n_in
        if layer < last:
            _activate(rows, x, x + n_out, activation)
    return x


@compiled
def _advance(state, force, sine, cosine, physics):
    """`CartPoleEnv.step` (Euler) for all lanes: `state` (4, WIDTH) float64 in place."""
    gravity, masspole, total_mass, length = physics[0], physics[1], physics[2], physics[3]
    polemass_length, tau = physics[4], physics[5]
    for lane in range(WIDTH):
        sincos(state[2], sine, cosine, lane)
    for lane in range(WIDTH):
        x_dot, theta_dot = state[1, lane], state[3, lane]
        sintheta, costheta = sine[lane], cosine[lane]
        temp = (force[lane] + polemass_length * (theta_dot * theta_dot) * sintheta) / total_mass
        thetaacc = (gravity * sintheta - costheta * temp) / (
            length * (4.0 / 3.0 - masspole * (costheta * costheta) / total_mass)
        )
        xacc = temp - polemass_length * thetaacc * costheta / total_mass
        state[0, lane] += tau * x_dot
        state[1, lane] = x_dot + tau * xacc
        state[2, lane] += tau * theta_dot
        state[3, lane] = theta_dot + tau * thetaacc


@compiled
def sines_and_cosines(angles):
    """Of float64 angles (n,), as the kernel takes them."""
    sine, cosine = np.empty_like(angles), np.empty_like(angles)
    for k in range(angles.size):
        sincos(angles, sine, cosine, k)
    return sine, cosine


@compiled
def _decide(rows, out, forces, force, silent):
    """The force of each lane's larger output (of equal ones the first), and which are NaN."""
    for lane in range(WIDTH):
        a, b = rows[out, lane], rows[out + 1, lane]
        force[lane] = forces[1] if b > a else forces[0]
        silent[lane] = np.isnan(a) | np.isnan(b)


@compiled
def _stopped(state, physics, left, silent, stop):
    """Count a step down in all lanes; which episodes are over, and whether any is."""
    x_limit, theta_limit, some = physics[6], physics[7], False
    for lane in range(WIDTH):
        left[lane] -= 1
        # a NaN is not inside
        inside = (abs(state[0, lane]) <= x_limit) & (abs(state[2, lane]) <= theta_limit)
        stop[lane] = silent[lane] | (left[lane] <= 0) | (not inside)
        some |= stop[lane]
    return some


class _Seats(NamedTuple):
    """Which episode each lane plays.

    packed    float32 (order.size, HALF), each seat's weights
    owner     int64 (HALF,), the individual whose weights those are, -1 for none
    upcoming  int64 (n,), each individual's next episode
    begun     int64 (1,), how many individuals have begun
    job       int64 (WIDTH,), the episode on each lane, -1 for none
    """

    packed: Any
    owner: Any
    upcoming: Any
    begun: Any
    job: Any


@compiled
def _next(seats, lane, episodes):
    """Whose episode this lane plays next, -1 for nobody's.

    Its seat's individual's; then, if the seat's other lane is free too, a fresh individual's; then
    that of whom most episodes are left, with whom other seats are busy.
    """
    mine = seats.owner[lane % HALF]
    if mine >= 0 and seats.upcoming[mine] < episodes:
        return mine
    if seats.job[(lane + HALF) % WIDTH] >= 0:
        return -1
    if seats.begun[0] < seats.upcoming.size:
        seats.begun[0] += 1
        return seats.begun[0] - 1
    found, least = -1, episodes
    for who in seats.owner:
        if who >= 0 and seats.upcoming[who] < least:
            found, least = who, seats.upcoming[who]
    return found


@compiled
def _sit(seats, lane, weights, order, episodes):
    """Give a free lane its next episode; returns which of its individual's it is, -1 for none."""
    who, seat = _next(seats, lane, episodes), lane % HALF
    if who < 0:
        return -1
    if seats.owner[seat] != who:
        for k in range(order.size):
            seats.packed[k, seat] = weights[who, order[k]]
        seats.owner[seat] = who
    episode = seats.upcoming[who]
    seats.job[lane] = who * episodes + episode
    seats.upcoming[who] += 1
    return episode


@compiled
def _record(trace, job, left, rows, out):
    flat = trace.reshape(trace.shape[0] * trace.shape[1], trace.shape[2], 5)
    for lane in range(WIDTH):
        if job[lane] >= 0:
            row = flat[job[lane], trace.shape[2] - left[lane]]
            for i in range(4):
                row[i] = rows[i, lane]
            row[4] = rows[out + 1, lane] > rows[out, lane]


@compiled
def play(weights, order, widths, activation, starts, physics, forces, limit, source, signs, trace):
    """Every individual plays every start; returns `lengths` and `broken`, both (n, e).

    `weights` (n, parameters) float32; `order` from `packing`; `widths` (layers + 1,) int64;
    `starts` (e, 4) float64; `physics` to `signs` as in `world.World`. `broken`
    marks episodes that met a NaN. `trace` float32 (n, e, limit, 5) receives each step's
    observation and action, or has size 0.
    """
    individuals, episodes = weights.shape[0], starts.shape[0]
    lengths = np.zeros(individuals * episodes, dtype=np.int64)
    broken = np.zeros(individuals * episodes, dtype=np.bool_)
    seats = _Seats(
        packed=np.zeros((order.size, HALF), dtype=np.float32),
        owner=np.full(HALF, -1, dtype=np.int64),
        upcoming=np.zeros(individuals, dtype=np.int64),
        begun=np.zeros(1, dtype=np.int64),
        job=np.full(WIDTH, -1, dtype=np.int64),
    )
    rows = np.zeros((widths.sum(), WIDTH), dtype=np.float32)
    state, force = np.zeros((4, WIDTH)), np.zeros(WIDTH)
    sine, cosine = np.zeros(WIDTH), np.zeros(WIDTH)
    left = np.zeros(WIDTH, dtype=np.int64)  # steps until the time limit
    silent = np.zeros(WIDTH, dtype=np.bool_)  # the policy's output is NaN: it takes no step
    stop, some = np.ones(WIDTH, dtype=np.bool_), True
    done = 0
    while True:
        for lane in range(WIDTH if some else 0):
            if not stop[lane]:
                continue
            now = seats.job[lane]
            if now >= 0:
                nan = np.isnan(state[0, lane]) or np.isnan(state[2, lane])
                broken[now] = silent[lane] or nan
                lengths[now] = limit - left[lane] - silent[lane]
                done += 1
            seats.job[lane] = -1
            state[:, lane], left[lane] = 0.0, limit  # a free lane continues from there, ignored
            for free in (lane, (lane + HALF) % WIDTH):
                if seats.job[free] < 0:
                    episode = _sit(seats, free, weights, order, episodes)
                    if episode >= 0:
                        state[:, free], left[free], stop[free] = starts[episode], limit, False
        if done == lengths.size:
            break
        for i in range(4):
            for lane in range(WIDTH):
                rows[i, lane] = signs[i] * np.float32(state[source[i], lane])
        out = _forward(seats.packed, rows, widths, activation)
        _decide(rows, out, forces, force, silent)
        if trace.size:
            _record(trace, seats.job, left, rows, out)
        _advance(state, force, sine, cosine, physics)
        some = _stopped(state, physics, left, silent, stop)
    shape = (individuals, episodes)
    return lengths.reshape(shape), broken.reshape(shape)
