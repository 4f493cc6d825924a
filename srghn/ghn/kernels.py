# mypy: disable-error-code="no-untyped-def"
"""The hypernetwork's arithmetic, compiled: one individual after the other, in plain loops.

So what one individual gets never depends on who else is in the batch, nor on any library's blocks
or threads. Genomes (n, genome_size) are read by place: a matrix begins at an index, row by row, and
a layer's bias lies right behind its weight, as `own_tensors` lays them out. All floats are float32.
"""

from __future__ import annotations

import math

import numpy as np

from srghn.compiled import TANH_LIMIT, TANH_P, TANH_Q, compiled, inlined


@inlined
def _tanh(values):
    """In place, within a few ulp; without a branch, so that the loop is vectorised."""
    for i in range(len(values)):
        x = values[i]
        x = TANH_LIMIT if x > TANH_LIMIT else x
        x = -TANH_LIMIT if x < -TANH_LIMIT else x  # a NaN stays
        z = x * x
        p = TANH_P[3] + z * TANH_P[4]
        p = TANH_P[0] + z * (TANH_P[1] + z * (TANH_P[2] + z * p))
        q = TANH_Q[3] + z * TANH_Q[4]
        q = TANH_Q[0] + z * (TANH_Q[1] + z * (TANH_Q[2] + z * q))
        values[i] = x * p / q


@inlined
def _add_product(rows, r, matrix, out):
    """`out` (size,) += `rows[r]` (k,) @ the first columns of `matrix` (k, width), in order.

    Four of the k at a time, because it is reading and writing `out` that takes the time. (A row by
    its index: to make a view of it takes as long as a small product.)
    """
    k = rows.shape[1]
    for j in range(0, k - k % 4, 4):
        a, b, c, d = rows[r, j], rows[r, j + 1], rows[r, j + 2], rows[r, j + 3]
        for i in range(len(out)):
            left = a * matrix[j, i] + b * matrix[j + 1, i]
            out[i] += left + (c * matrix[j + 2, i] + d * matrix[j + 3, i])
    for j in range(k - k % 4, k):
        for i in range(len(out)):
            out[i] += rows[r, j] * matrix[j, i]


@compiled
def _matrix(genome, start, rows, columns):
    return genome[start : start + rows * columns].reshape((rows, columns))


@compiled
def _layer(genome, start, inputs, width):
    """(weight (inputs, width), bias (width,)) of the layer at `start`."""
    end = start + inputs * width
    return _matrix(genome, start, inputs, width), genome[end : end + width]


@inlined
def _affine(rows, r, weight, bias, out):
    """`out` = the first of the outputs of a layer for `rows[r]`."""
    for i in range(len(out)):
        out[i] = bias[i]
    _add_product(rows, r, weight, out)


@inlined
def _hear(node, neighbours, vectors, weight, mean, out):
    """`out` += (mean of the neighbours' vectors) @ weight; `mean` (1, hidden) is room for it."""
    starts, nodes = neighbours
    first, end = starts[node], starts[node + 1]
    if first == end:
        return
    for i in range(len(out)):
        mean[0, i] = vectors[nodes[first], i]
    for k in range(first + 1, end):
        for i in range(len(out)):
            mean[0, i] += vectors[nodes[k], i]
    for i in range(len(out)):
        mean[0, i] /= np.float32(end - first)
    _add_product(mean, 0, weight, out)


@inlined
def _set(vectors, node, out):
    """`vectors[node]` = tanh of `out`, which is lost."""
    _tanh(out)
    for i in range(len(out)):
        vectors[node, i] = out[i]


@compiled
def node_vectors(genomes, hidden, messages, plan, rounds, in_turn):
    """Vectors (n, parameters, hidden) in (-1, 1) after `rounds` of messages forward and backward.

    `plan` is (kinds, incoming, outgoing, rows) of a `Plan`; the embeddings lie at 0, the message
    matrices at `messages`. `in_turn`: forward and then backward, each node after those before it
    (Zhang et al. 2018, eq. 3-4), so that one round brings news of all nodes before and after.
    Otherwise all nodes at once, from both sides: what a node knows travels one edge a round.
    """
    kinds, incoming, outgoing, rows = plan
    nodes, square = len(kinds), hidden * hidden
    found = np.empty((len(genomes), len(rows), hidden), dtype=np.float32)
    now, new = np.empty((nodes, hidden), dtype=np.float32), np.empty((nodes, hidden), np.float32)
    mean, out = np.empty((1, hidden), dtype=np.float32), np.empty(hidden, dtype=np.float32)
    for n in range(len(genomes)):
        embedding = _matrix(genomes[n], 0, messages // hidden, hidden)
        own = _matrix(genomes[n], messages, hidden, hidden)
        forward = _matrix(genomes[n], messages + square, hidden, hidden)
        backward, bias = _layer(genomes[n], messages + 2 * square, hidden, hidden)
        for node in range(nodes):
            for i in range(hidden):
                now[node, i] = embedding[kinds[node], i]
        for _ in range(rounds):
            if in_turn:
                for turn in range(2 * nodes):
                    if turn < nodes:
                        node, side, weight = turn, incoming, forward
                    else:
                        node, side, weight = 2 * nodes - 1 - turn, outgoing, backward
                    _affine(now, node, own, bias, out)
                    _hear(node, side, now, weight, mean, out)
                    _set(now, node, out)
            else:
                for node in range(nodes):
                    _affine(now, node, own, bias, out)
                    _hear(node, incoming, now, forward, mean, out)
                    _hear(node, outgoing, now, backward, mean, out)
                    _set(new, node, out)
                now, new = new, now
        for row in range(len(rows)):
            for i in range(hidden):
                found[n, row, i] = now[rows[row], i]
    return found


@compiled
def dense(genomes, start, width, vectors, bounds):
    """Values (n, P): tensor t is the first of the outputs of one layer, from `bounds[t]` on."""
    flat = np.empty((len(genomes), bounds[-1]), dtype=np.float32)
    for n in range(len(genomes)):
        rows, values = vectors[n], flat[n]
        weight, bias = _layer(genomes[n], start, rows.shape[1], width)
        for t in range(len(rows)):
            _affine(rows, t, weight, bias, values[bounds[t] : bounds[t + 1]])
    return flat


@compiled
def spread(genomes, start, basis, vectors, bounds):
    """Values (n, P): a few coefficients a tensor by one layer, spread by the basis (k, widest)."""
    flat = np.zeros((len(genomes), bounds[-1]), dtype=np.float32)
    coefficients = np.empty((1, len(basis)), dtype=np.float32)
    for n in range(len(genomes)):
        rows, values = vectors[n], flat[n]
        weight, bias = _layer(genomes[n], start, rows.shape[1], len(basis))
        for t in range(len(rows)):
            _affine(rows, t, weight, bias, coefficients[0])
            _add_product(coefficients, 0, basis, values[bounds[t] : bounds[t + 1]])
    return flat


@compiled
def chunked(genomes, start, width, waves, vectors, bounds):
    """Values (n, P): tensors in chunks of `width`, told apart by `waves` (most chunks, hidden).

    The layer of positions lies at `start`, and behind it the one that makes values.
    """
    hidden = waves.shape[1]
    flat = np.empty((len(genomes), bounds[-1]), dtype=np.float32)
    places, vector = np.empty_like(waves), np.empty((1, hidden), dtype=np.float32)
    for n in range(len(genomes)):
        rows, values = vectors[n], flat[n]
        position = _matrix(genomes[n], start, hidden, hidden)
        weight, bias = _layer(genomes[n], start + hidden * hidden, hidden, width)
        places[:] = 0
        for c in range(len(waves)):
            _add_product(waves, c, position, places[c])
        for t in range(len(rows)):
            for c, first in enumerate(range(bounds[t], bounds[t + 1], width)):
                for i in range(hidden):
                    vector[0, i] = rows[t, i] + places[c, i]
                _tanh(vector[0])
                end = min(first + width, bounds[t + 1])
                _affine(vector, 0, weight, bias, values[first:end])
    return flat


@compiled
def deviations(genomes, start, width, vectors):
    """The stochastic head's two layers: (n, tensors, width), to which softplus is still to come."""
    hidden = vectors.shape[2]
    raw = np.empty((len(genomes), vectors.shape[1], width), dtype=np.float32)
    inner = np.empty((1, hidden), dtype=np.float32)
    for n in range(len(genomes)):
        first, first_bias = _layer(genomes[n], start, hidden, hidden)
        second, second_bias = _layer(genomes[n], start + hidden * (hidden + 1), hidden, width)
        for t in range(vectors.shape[1]):
            _affine(vectors[n], t, first, first_bias, inner[0])
            _tanh(inner[0])
            _affine(inner, 0, second, second_bias, raw[n, t])
    return raw


@inlined
def _rates(genome, start, vectors, limits, floors, rates):
    """`rates` (tensors,) by the rate head at `start`; the others as in `mutation_rates`."""
    initial, low, high, fold = limits
    width = high - low
    weight, bias = _layer(genome, start, vectors.shape[1], 1)
    for t in range(len(rates)):
        x = bias[0] + initial
        for i in range(len(weight)):
            x += vectors[t, i] * weight[i, 0]
        if fold and width > 0 and (x < low or x > high):
            x = _clipped(x, np.float32(-1e4), np.float32(1e4))  # beyond, nothing is left of it
            x = low + abs((x - high) % (np.float32(2) * width) - width)
        rate = math.exp(_clipped(x, low, high))
        rates[t] = floors[t] if rate < floors[t] else rate


@inlined
def _clipped(x, low, high):
    return low if x < low else high if x > high else x  # a NaN stays


@compiled
def mutation_rates(genomes, start, vectors, limits, floors):
    """The rate head: (n, tensors), around the initial rate and within its bounds.

    `limits` (initial, low, high) are logarithms, with whether those beyond a bound are folded back;
    `floors` (tensors,) are the least rates.

    Differs from the paper: bounded, since an unbounded rate runs away. Logarithms beyond a bound
    are folded back. Clipped, they would wander on unseen while the world rests, and a population
    would need hundreds of generations to find its rates again when the world moves.
    """
    rates = np.empty((len(genomes), vectors.shape[1]), dtype=np.float32)
    for n in range(len(genomes)):
        _rates(genomes[n], start, vectors[n], limits, floors, rates[n])
    return rates


@compiled
def births(genomes, mothers, kept, noise, sigma, vectors, basis, bounds, rates, head, children):
    """`children` (n, genome_size); what their own rate heads say goes to `rates` (n, tensors).

    Each keeps of its mother's genome what `kept` (genome_size,) says. To tensor t it adds `noise`
    (n, tensors, k) times the mother's `sigma` (m, tensors, k) times `rates`, through the basis.
    `head` is (index of the rate head's first tensor, its place, limits, floors, whether children
    use their own). The rate head's are the last tensors, and come first.
    """
    first, start, limits, floors, own = head
    tensors, k = noise.shape[1:]
    steps = np.empty((tensors, k), dtype=np.float32)
    for n in range(len(mothers)):
        m, child = mothers[n], children[n]
        for i in range(len(child)):
            child[i] = genomes[m, i] * kept[i]
        for turn in range(tensors):
            t = (first + turn) % tensors
            if t == 0 and own:
                _rates(child, start, vectors[m], limits, floors, rates[n])
            for i in range(k):
                steps[t, i] = noise[n, t, i] * sigma[m, t, i] * rates[n, t]
            _add_product(steps, t, basis, child[bounds[t] : bounds[t + 1]])
