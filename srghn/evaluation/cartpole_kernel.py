# mypy: disable-error-code="no-untyped-def"
"""CartPole and an MLP policy fused into one compiled loop, eight episodes abreast.

The physics is Gymnasium's `CartPoleEnv.step`, operation for operation in float64, with `sin` and
`cos` from the same C library; the policy sees the state rounded to float32, as there. A lane whose
episode ends takes the next one, so no lane waits for the longest episode. Each lane has its own
copy of its individual's weights, packed in the order in which the loop reads them: any mix of
individuals runs at full speed, and a lane's result depends on nothing in the other lanes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from srghn.compiled import TANH_LIMIT, TANH_P, TANH_Q, compiled
from srghn.evaluation.lanes import (
    WIDTH,
    above,
    add,
    div,
    fma,
    larger,
    load,
    mul,
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
    return 8 if left >= 8 else 2 if left >= 2 else 1


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
            gate = mul(add(one, t), half)
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
    while y + 8 <= end:
        a, b, c = load(packed, k), load(packed, k + 1), load(packed, k + 2)
        d, e, f = load(packed, k + 3), load(packed, k + 4), load(packed, k + 5)
        g, h = load(packed, k + 6), load(packed, k + 7)
        for i in range(n_in):
            k += 8
            v = load(rows, x + i)
            a, b = fma(load(packed, k), v, a), fma(load(packed, k + 1), v, b)
            c, d = fma(load(packed, k + 2), v, c), fma(load(packed, k + 3), v, d)
            e, f = fma(load(packed, k + 4), v, e), fma(load(packed, k + 5), v, f)
            g, h = fma(load(packed, k + 6), v, g), fma(load(packed, k + 7), v, h)
        k += 8
        store(rows, y, a), store(rows, y + 1, b), store(rows, y + 2, c), store(rows, y + 3, d)
        store(rows, y + 4, e), store(rows, y + 5, f), store(rows, y + 6, g), store(rows, y + 7, h)
        y += 8
    while y + 2 <= end:
        a, b = load(packed, k), load(packed, k + 1)
        for i in range(n_in):
            k += 2
            v = load(rows, x + i)
            a, b = fma(load(packed, k), v, a), fma(load(packed, k + 1), v, b)
        k += 2
        store(rows, y, a), store(rows, y + 1, b)
        y += 2
    if y < end:
        a = load(packed, k)
        for i in range(n_in):
            k += 1
            a = fma(load(packed, k), load(rows, x + i), a)
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
        sine[lane] = math.sin(state[2, lane])
        cosine[lane] = math.cos(state[2, lane])
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
def _seat(lane, job, weights, order, starts, packed, owner, state):
    """Put episode `job` (individual-major) on a lane."""
    individual = job // starts.shape[0]
    if owner[lane] != individual:
        for k in range(order.size):
            packed[k, lane] = weights[individual, order[k]]
        owner[lane] = individual
    for i in range(4):
        state[i, lane] = starts[job % starts.shape[0], i]


@compiled
def _record(trace, job, lengths, rows, out):
    flat = trace.reshape(lengths.size, trace.shape[2], 5)
    for lane in range(WIDTH):
        if job[lane] >= 0:
            row = flat[job[lane], lengths[job[lane]]]
            for i in range(4):
                row[i] = rows[i, lane]
            row[4] = rows[out + 1, lane] > rows[out, lane]


@compiled
def play(weights, order, widths, activation, starts, physics, forces, limit, trace):
    """Every individual plays every start; returns `lengths` and `broken`, both (n, e).

    `weights` (n, parameters) float32; `order` from `packing`; `widths` (layers + 1,) int64;
    `starts` (e, 4) float64; `physics`, `forces` and `limit` as in `cartpole_world.World`. `broken`
    marks episodes that met a NaN. `trace` float32 (n, e, limit, 5) receives each step's
    observation and action, or has size 0.
    """
    jobs = weights.shape[0] * starts.shape[0]
    lengths = np.zeros(jobs, dtype=np.int64)
    broken = np.zeros(jobs, dtype=np.bool_)
    packed = np.zeros((order.size, WIDTH), dtype=np.float32)
    rows = np.zeros((widths.sum(), WIDTH), dtype=np.float32)
    state = np.zeros((4, WIDTH))
    force, sine, cosine = np.zeros(WIDTH), np.zeros(WIDTH), np.zeros(WIDTH)
    job = np.full(WIDTH, -1, dtype=np.int64)  # episode on each lane, -1 for none
    owner = np.full(WIDTH, -1, dtype=np.int64)  # individual whose weights each lane holds
    x_limit, theta_limit = physics[6], physics[7]
    playing = min(jobs, WIDTH)
    upcoming = playing
    for lane in range(playing):
        job[lane] = lane
        _seat(lane, lane, weights, order, starts, packed, owner, state)
    while playing > 0:
        for i in range(4):
            for lane in range(WIDTH):
                rows[i, lane] = np.float32(state[i, lane])
        out = _forward(packed, rows, widths, activation)
        for lane in range(WIDTH):
            force[lane] = forces[1] if rows[out + 1, lane] > rows[out, lane] else forces[0]
        if trace.size:
            _record(trace, job, lengths, rows, out)
        _advance(state, force, sine, cosine, physics)
        for lane in range(WIDTH):
            now = job[lane]
            if now < 0:
                continue
            x, theta = state[0, lane], state[2, lane]
            nan = np.isnan(rows[out, lane]) or np.isnan(rows[out + 1, lane])
            lengths[now] += not nan  # a policy without an answer takes no step
            nan = nan or np.isnan(x) or np.isnan(theta)
            inside = -x_limit <= x <= x_limit and -theta_limit <= theta <= theta_limit
            if inside and not nan and lengths[now] < limit:
                continue
            broken[now] = nan
            if upcoming < jobs:
                job[lane] = upcoming
                _seat(lane, upcoming, weights, order, starts, packed, owner, state)
                upcoming += 1
            else:
                job[lane] = -1
                playing -= 1
    shape = (weights.shape[0], starts.shape[0])
    return lengths.reshape(shape), broken.reshape(shape)
