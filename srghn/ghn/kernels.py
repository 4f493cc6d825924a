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
from srghn.lanes import WIDTH, add, load_at, mul, splat, store_at


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
def _four(rows, r, j, matrix, place, width):
    """Entries j to j + 3 of `rows[r]` times sixteen columns of as many rows from `place` on."""
    left = add(
        mul(splat(rows[r, j]), load_at(matrix, place)),
        mul(splat(rows[r, j + 1]), load_at(matrix, place + width)),
    )
    right = add(
        mul(splat(rows[r, j + 2]), load_at(matrix, place + 2 * width)),
        mul(splat(rows[r, j + 3]), load_at(matrix, place + 3 * width)),
    )
    return add(left, right)


@inlined
def _add_product(rows, r, matrix, start, width, out, first, size):
    """`out[first:first + size]` += `rows[r]` (k,) @ the first columns of a matrix, in order.

    The matrix (k, width) lies in the flat array `matrix` from `start` on. Four of the k at a time;
    sixteen columns as one vector, whose sums stay in a register. (All by index: to make a view of
    an array, or to ask whether two overlap, takes as long as a small product.)
    """
    k = rows.shape[1]
    fours, i = k - k % 4, 0
    while i + WIDTH <= size:
        sums = load_at(out, first + i)
        for j in range(0, fours, 4):
            sums = add(sums, _four(rows, r, j, matrix, start + j * width + i, width))
        for j in range(fours, k):
            sums = add(sums, mul(splat(rows[r, j]), load_at(matrix, start + j * width + i)))
        store_at(out, first + i, sums)
        i += WIDTH
    for c in range(i, size):
        total = out[first + c]
        for j in range(0, fours, 4):
            at = start + j * width + c
            left = rows[r, j] * matrix[at] + rows[r, j + 1] * matrix[at + width]
            right = (
                rows[r, j + 2] * matrix[at + 2 * width] + rows[r, j + 3] * matrix[at + 3 * width]
            )
            total += left + right
        for j in range(fours, k):
            total += rows[r, j] * matrix[start + j * width + c]
        out[first + c] = total


@inlined
def _layer(start, inputs, width):
    """Where a layer's weight (inputs, width) lies, where its bias (width,), and the width."""
    return start, start + inputs * width, width


@inlined
def _affine(rows, r, genome, layer, out, first, size):
    """`out[first:first + size]` = the first of the outputs of a layer for `rows[r]`."""
    start, bias, width = layer
    for i in range(size):
        out[first + i] = genome[bias + i]
    _add_product(rows, r, genome, start, width, out, first, size)


@inlined
def _hear(node, neighbours, vectors, genome, start, mean, out):
    """`out` += (mean of the neighbours' vectors) @ the square matrix at `start`.

    `mean` (1, hidden) is room for it.
    """
    starts, nodes = neighbours
    first, end = starts[node], starts[node + 1]
    if first == end:
        return
    hidden = len(out)
    for i in range(hidden):
        mean[0, i] = vectors[nodes[first], i]
    for k in range(first + 1, end):
        for i in range(hidden):
            mean[0, i] += vectors[nodes[k], i]
    for i in range(hidden):
        mean[0, i] /= np.float32(end - first)
    _add_product(mean, 0, genome, start, hidden, out, 0, hidden)


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
    forward, backward = messages + square, messages + 2 * square
    own = messages, messages + 3 * square, hidden  # a layer whose bias lies behind all three
    found = np.empty((len(genomes), len(rows), hidden), dtype=np.float32)
    now, new = np.empty((nodes, hidden), dtype=np.float32), np.empty((nodes, hidden), np.float32)
    mean, out = np.empty((1, hidden), dtype=np.float32), np.empty(hidden, dtype=np.float32)
    for n in range(len(genomes)):
        genome = genomes[n]
        for node in range(nodes):
            for i in range(hidden):
                now[node, i] = genome[kinds[node] * hidden + i]
        for _ in range(rounds):
            if in_turn:
                for turn in range(2 * nodes):
                    if turn < nodes:
                        node, side, start = turn, incoming, forward
                    else:
                        node, side, start = 2 * nodes - 1 - turn, outgoing, backward
                    _affine(now, node, genome, own, out, 0, hidden)
                    _hear(node, side, now, genome, start, mean, out)
                    _set(now, node, out)
            else:
                for node in range(nodes):
                    _affine(now, node, genome, own, out, 0, hidden)
                    _hear(node, incoming, now, genome, forward, mean, out)
                    _hear(node, outgoing, now, genome, backward, mean, out)
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
    layer = _layer(start, vectors.shape[2], width)
    for n in range(len(genomes)):
        genome, rows, values = genomes[n], vectors[n], flat[n]
        for t in range(len(rows)):
            _affine(rows, t, genome, layer, values, bounds[t], bounds[t + 1] - bounds[t])
    return flat


@compiled
def spread(genomes, start, basis, vectors, bounds):
    """Values (n, P): a few coefficients a tensor by one layer, spread by the basis (k, widest)."""
    k, widest = basis.shape
    flat = np.zeros((len(genomes), bounds[-1]), dtype=np.float32)
    coefficients, columns = np.empty((1, k), dtype=np.float32), basis.reshape(basis.size)
    layer = _layer(start, vectors.shape[2], k)
    for n in range(len(genomes)):
        genome, rows, values = genomes[n], vectors[n], flat[n]
        for t in range(len(rows)):
            _affine(rows, t, genome, layer, coefficients[0], 0, k)
            size = bounds[t + 1] - bounds[t]
            _add_product(coefficients, 0, columns, 0, widest, values, bounds[t], size)
    return flat


@compiled
def chunked(genomes, start, width, waves, vectors, bounds):
    """Values (n, P): tensors in chunks of `width`, told apart by `waves` (most chunks, hidden).

    The layer of positions lies at `start`, and behind it the one that makes values.
    """
    hidden = waves.shape[1]
    layer = _layer(start + hidden * hidden, hidden, width)
    flat = np.empty((len(genomes), bounds[-1]), dtype=np.float32)
    places, vector = np.empty_like(waves), np.empty((1, hidden), dtype=np.float32)
    for n in range(len(genomes)):
        genome, rows, values = genomes[n], vectors[n], flat[n]
        places[:] = 0
        for c in range(len(waves)):
            _add_product(waves, c, genome, start, hidden, places[c], 0, hidden)
        for t in range(len(rows)):
            for c, first in enumerate(range(bounds[t], bounds[t + 1], width)):
                for i in range(hidden):
                    vector[0, i] = rows[t, i] + places[c, i]
                _tanh(vector[0])
                size = min(width, bounds[t + 1] - first)
                _affine(vector, 0, genome, layer, values, first, size)
    return flat


@compiled
def deviations(genomes, start, width, vectors):
    """The stochastic head's two layers: (n, tensors, width), to which softplus is still to come."""
    hidden = vectors.shape[2]
    first = _layer(start, hidden, hidden)
    second = _layer(start + hidden * (hidden + 1), hidden, width)
    raw = np.empty((len(genomes), vectors.shape[1], width), dtype=np.float32)
    inner = np.empty((1, hidden), dtype=np.float32)
    for n in range(len(genomes)):
        genome = genomes[n]
        for t in range(vectors.shape[1]):
            _affine(vectors[n], t, genome, first, inner[0], 0, hidden)
            _tanh(inner[0])
            _affine(inner, 0, genome, second, raw[n, t], 0, width)
    return raw


@inlined
def _rates(genome, start, vectors, limits, floors, rates):
    """`rates` (tensors,) by the rate head at `start`; the others as in `mutation_rates`."""
    initial, low, high, fold = limits
    width = high - low
    hidden = vectors.shape[1]
    for t in range(len(rates)):
        x = genome[start + hidden] + initial
        for i in range(hidden):
            x += vectors[t, i] * genome[start + i]
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
    columns, widest = basis.reshape(basis.size), basis.shape[1]
    steps = np.empty((1, k), dtype=np.float32)
    for n in range(len(mothers)):
        child, mother, vector = children[n], genomes[mothers[n]], vectors[mothers[n]]
        for i in range(len(child)):
            child[i] = mother[i] * kept[i]
        for turn in range(tensors):
            t = (first + turn) % tensors
            if t == 0 and own:
                _rates(child, start, vector, limits, floors, rates[n])
            for i in range(k):
                steps[0, i] = noise[n, t, i] * sigma[mothers[n], t, i] * rates[n, t]
            begin = bounds[t]
            _add_product(steps, 0, columns, 0, widest, child, begin, bounds[t + 1] - begin)
