# mypy: disable-error-code="no-untyped-def"
"""The hypernetwork's arithmetic, compiled: one individual after the other, in plain loops.

So what one individual gets never depends on who else is in the batch, nor on any library's blocks
or threads. Genomes (n, genome_size) are read by place: a matrix begins at an index, row by row, and
a layer's bias lies right behind its weight, as `own_tensors` lays them out. All floats are float32.

The default width is that of a vector, and kernels with small products are compiled for it as a
constant: unrolled, node vectors take half the time. Each is compiled when it is first called.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from srghn.compiled import TANH_LIMIT, TANH_P, TANH_Q, compiled, inlined
from srghn.lanes import (
    WIDTH,
    add,
    div,
    larger,
    load_at,
    mul,
    smaller,
    splat,
    splat_at,
    splat_lane,
    store_at,
)


@inlined
def _tanh(x):
    """Within a few ulp; a NaN stays."""
    x = larger(smaller(x, splat(TANH_LIMIT)), splat(-TANH_LIMIT))
    z = mul(x, x)
    p = add(splat(TANH_P[3]), mul(z, splat(TANH_P[4])))
    p = add(splat(TANH_P[1]), mul(z, add(splat(TANH_P[2]), mul(z, p))))
    q = add(splat(TANH_Q[3]), mul(z, splat(TANH_Q[4])))
    q = add(splat(TANH_Q[1]), mul(z, add(splat(TANH_Q[2]), mul(z, q))))
    p, q = add(splat(TANH_P[0]), mul(z, p)), add(splat(TANH_Q[0]), mul(z, q))
    return div(mul(x, p), q)


@inlined
def _times(factor, matrix, place):
    """Sixteen values of the flat `matrix`, each times `factor`."""
    return mul(factor, load_at(matrix, place))


@inlined
def _plus_product(sums, row, k, matrix, start, width):
    """`sums` + k values @ sixteen columns of as many rows, four of the k at a time, in order.

    `row` is (values, index of the first of the k); the columns begin at `start` in the flat
    `matrix`, whose rows are `width` apart. (All by index: to make a view of an array takes as long
    as a small product.)
    """
    values, first = row
    fours = k - k % 4
    for j in range(0, fours, 4):
        i, at = first + j, start + j * width
        a = _times(splat_at(values, i), matrix, at)
        b = _times(splat_at(values, i + 1), matrix, at + width)
        c = _times(splat_at(values, i + 2), matrix, at + 2 * width)
        d = _times(splat_at(values, i + 3), matrix, at + 3 * width)
        sums = add(sums, add(add(a, b), add(c, d)))
    for j in range(fours, k):
        sums = add(sums, _times(splat_at(values, first + j), matrix, start + j * width))
    return sums


@inlined
def _plus_sixteen(sums, values, matrix, start, width):
    """The same for the sixteen `values` of one vector: they stay in registers."""
    for j in range(0, WIDTH, 4):
        at = start + j * width
        a = _times(splat_lane(values, j), matrix, at)
        b = _times(splat_lane(values, j + 1), matrix, at + width)
        c = _times(splat_lane(values, j + 2), matrix, at + 2 * width)
        d = _times(splat_lane(values, j + 3), matrix, at + 3 * width)
        sums = add(sums, add(add(a, b), add(c, d)))
    return sums


@inlined
def _add_product(row, k, matrix, start, width, out, first, size):
    """`out[first:first + size]` += k values @ the first columns of a matrix (k, width).

    As `_plus_product`, for any `size`.
    """
    values, begin = row
    fours, whole = k - k % 4, size - size % WIDTH
    for i in range(0, whole, WIDTH):
        sums = load_at(out, first + i)
        store_at(out, first + i, _plus_product(sums, row, k, matrix, start + i, width))
    for i in range(whole, size):
        total = out[first + i]
        for j in range(0, fours, 4):
            at, place = begin + j, start + j * width + i
            left = values[at] * matrix[place] + values[at + 1] * matrix[place + width]
            right = (
                values[at + 2] * matrix[place + 2 * width]
                + values[at + 3] * matrix[place + 3 * width]
            )
            total += left + right
        for j in range(fours, k):
            total += values[begin + j] * matrix[start + j * width + i]
        out[first + i] = total


@inlined
def _affine(row, k, genome, layer, out, first, size):
    """`out[first:first + size]` = the first of the outputs of a layer for k values.

    `layer` is (where its weight (k, width) lies, width); its bias lies behind it.
    """
    start, width = layer
    bias = start + k * width
    for i in range(size):
        out[first + i] = genome[bias + i]
    _add_product(row, k, genome, start, width, out, first, size)


@inlined
def _padded(size):
    """The next multiple of WIDTH."""
    return -(-size // WIDTH) * WIDTH


@inlined
def _set_tanh(values):
    """All values, in place; their number is a multiple of WIDTH."""
    for i in range(0, len(values), WIDTH):
        store_at(values, i, _tanh(load_at(values, i)))


@inlined
def _heard(node, neighbours, vectors, side, width, room):
    """Where in `vectors` the mean of the neighbours' lies, at `room` if need be; -1 without any."""
    starts, nodes = neighbours
    begin, end = starts[node], starts[node + 1]
    if end - begin == 1:
        return side + nodes[begin] * width
    if begin == end:
        return -1
    for i in range(0, width, WIDTH):
        total = load_at(vectors, side + nodes[begin] * width + i)
        for k in range(begin + 1, end):
            total = add(total, load_at(vectors, side + nodes[k] * width + i))
        store_at(vectors, room + i, div(total, splat(np.float32(end - begin))))
    return room


@inlined
def _node_vectors(genomes, hidden, messages, plan, rounds, in_turn):
    kinds, incoming, outgoing, rows, sizes = plan
    nodes, sweeps, height = len(kinds), rounds * (2 if in_turn else 1), 3 * hidden + 1
    width = _padded(hidden)  # of rows that are whole vectors, zeros at their end
    # each node's vector before a sweep and after it, in turn; at the end room for two means
    half, room = nodes * width, 2 * nodes * width
    vectors = np.zeros(room + 2 * width, dtype=np.float32)
    matrix = np.zeros(height * width + WIDTH, dtype=np.float32)
    own = -(matrix.ctypes.data // 4) % WIDTH  # aligned, as genomes are not
    square = hidden * width
    forward, backward, bias = own + square, own + 2 * square, own + 3 * square
    found = np.empty((len(genomes), len(rows), hidden), dtype=np.float32)
    seen = sizes.shape[1]
    for n in range(len(genomes)):
        genome = genomes[n]
        for node in range(nodes):
            for i in range(hidden):
                vectors[node * width + i] = genome[kinds[node] * hidden + i]
            for j in range(seen):
                place = messages + (j - seen) * hidden
                for i in range(hidden):
                    vectors[node * width + i] += sizes[node, j] * genome[place + i]
        if width == hidden:
            for i in range(0, height * width, WIDTH):
                store_at(matrix, own + i, load_at(genome, messages + i))
        else:
            for row in range(height):
                for i in range(hidden):
                    matrix[own + row * width + i] = genome[messages + row * hidden + i]
        for sweep in range(sweeps):
            old, new = sweep % 2 * half, (sweep + 1) % 2 * half
            near, back = new if in_turn else old, in_turn and sweep % 2
            for turn in range(nodes):
                node = nodes - 1 - turn if back else turn
                first = last = -1
                if not back:
                    first = _heard(node, incoming, vectors, near, width, room)
                if back or not in_turn:
                    last = _heard(node, outgoing, vectors, near, width, room + width)
                for i in range(0, width, WIDTH):
                    row, sums = old + node * width, load_at(matrix, bias + i)
                    sums = _plus_product(sums, (vectors, row), hidden, matrix, own + i, width)
                    if first >= 0:
                        ear = vectors, first
                        sums = _plus_product(sums, ear, hidden, matrix, forward + i, width)
                    if last >= 0:
                        ear = vectors, last
                        sums = _plus_product(sums, ear, hidden, matrix, backward + i, width)
                    store_at(vectors, new + node * width + i, _tanh(sums))
        for row in range(len(rows)):
            for i in range(hidden):
                found[n, row, i] = vectors[sweeps % 2 * half + rows[row] * width + i]
    return found


@compiled
def _node_vectors_unrolled(genomes, messages, plan, rounds, in_turn):
    return _node_vectors(genomes, WIDTH, messages, plan, rounds, in_turn)


@compiled
def _node_vectors_of_any(genomes, hidden, messages, plan, rounds, in_turn):
    return _node_vectors(genomes, hidden, messages, plan, rounds, in_turn)


def node_vectors(
    genomes: Any, hidden: int, messages: int, plan: Any, rounds: int, in_turn: bool
) -> Any:
    """Vectors (n, parameters, hidden) in (-1, 1) after `rounds` of messages forward and backward.

    `plan` is (kinds, incoming, outgoing, rows, sizes) of a `Plan`; the embeddings lie at 0, the
    message matrices and their bias at `messages`, right before them a row for each column of
    `sizes`. `in_turn`: forward and then backward, each node after
    those before it (Zhang et al. 2018, eq. 3-4), so that one round brings news of all nodes before
    and after. Otherwise all nodes at once, from both sides: what a node knows travels one edge a
    round.
    """
    if hidden == WIDTH:
        return _node_vectors_unrolled(genomes, messages, plan, rounds, in_turn)
    return _node_vectors_of_any(genomes, hidden, messages, plan, rounds, in_turn)


@inlined
def _dense(genomes, start, width, vectors, hidden, bounds):
    count, tensors = vectors.shape[:2]
    flat, rows = np.empty((count, bounds[-1]), dtype=np.float32), vectors.reshape(vectors.size)
    for n in range(count):
        genome, values = genomes[n], flat[n]
        for t in range(tensors):
            row, size = (rows, (n * tensors + t) * hidden), bounds[t + 1] - bounds[t]
            _affine(row, hidden, genome, (start, width), values, bounds[t], size)
    return flat


@compiled
def _dense_unrolled(genomes, start, width, vectors, bounds):
    return _dense(genomes, start, width, vectors, WIDTH, bounds)


@compiled
def _dense_of_any(genomes, start, width, vectors, bounds):
    return _dense(genomes, start, width, vectors, vectors.shape[2], bounds)


def dense(genomes: Any, start: int, width: int, vectors: Any, bounds: Any) -> Any:
    """Values (n, P): tensor t is the first of the outputs of one layer, from `bounds[t]` on."""
    kernel = _dense_unrolled if vectors.shape[2] == WIDTH else _dense_of_any
    return kernel(genomes, start, width, vectors, bounds)


@compiled
def spread(genomes, start, basis, vectors, bounds):
    """Values (n, P): a few coefficients a tensor by one layer, spread by the basis (k, widest)."""
    count, tensors, hidden = vectors.shape
    k, widest = basis.shape
    flat, rows = np.zeros((count, bounds[-1]), dtype=np.float32), vectors.reshape(vectors.size)
    coefficients, columns = np.empty(k, dtype=np.float32), basis.reshape(basis.size)
    for n in range(count):
        genome, values = genomes[n], flat[n]
        for t in range(tensors):
            row, size = (rows, (n * tensors + t) * hidden), bounds[t + 1] - bounds[t]
            _affine(row, hidden, genome, (start, k), coefficients, 0, k)
            _add_product((coefficients, 0), k, columns, 0, widest, values, bounds[t], size)
    return flat


@compiled
def patterned(genomes, start, k, patterns, vectors, bounds):
    """Values (n, P): k coefficients a tensor by one layer, spread by that tensor's own patterns.

    Those of tensor t lie in the flat `patterns`, (k, values) from k * `bounds[t]` on.
    """
    count, tensors, hidden = vectors.shape
    flat, rows = np.zeros((count, bounds[-1]), dtype=np.float32), vectors.reshape(vectors.size)
    coefficients = np.empty(k, dtype=np.float32)
    for n in range(count):
        genome, values = genomes[n], flat[n]
        for t in range(tensors):
            row, first, size = (rows, (n * tensors + t) * hidden), bounds[t], bounds[t + 1]
            size -= first
            _affine(row, hidden, genome, (start, k), coefficients, 0, k)
            _add_product((coefficients, 0), k, patterns, k * first, size, values, first, size)
    return flat


@compiled
def chunked(genomes, start, width, waves, vectors, bounds):
    """Values (n, P): tensors in chunks of `width`, told apart by `waves` (most chunks, hidden).

    The layer of positions lies at `start`, and behind it the one that makes values.
    """
    count, tensors, hidden = vectors.shape
    layer, positions = (start + hidden * hidden, width), waves.reshape(waves.size)
    flat = np.empty((count, bounds[-1]), dtype=np.float32)
    places, vector = np.empty(waves.size, np.float32), np.zeros(_padded(hidden), dtype=np.float32)
    for n in range(count):
        genome, values = genomes[n], flat[n]
        places[:] = 0
        for first in range(0, waves.size, hidden):
            row = positions, first
            _add_product(row, hidden, genome, start, hidden, places, first, hidden)
        for t in range(tensors):
            for c, first in enumerate(range(bounds[t], bounds[t + 1], width)):
                for i in range(hidden):
                    vector[i] = vectors[n, t, i] + places[c * hidden + i]
                _set_tanh(vector)
                size = min(width, bounds[t + 1] - first)
                _affine((vector, 0), hidden, genome, layer, values, first, size)
    return flat


@inlined
def _deviations(genomes, start, width, vectors, hidden):
    count, tensors = vectors.shape[:2]
    first, second = (start, hidden), (start + hidden * (hidden + 1), width)
    raw, rows = np.empty((count, tensors, width), np.float32), vectors.reshape(vectors.size)
    flat, inner = raw.reshape(raw.size), np.zeros(_padded(hidden), dtype=np.float32)
    for n in range(count):
        for row in range(n * tensors, (n + 1) * tensors):
            _affine((rows, row * hidden), hidden, genomes[n], first, inner, 0, hidden)
            _set_tanh(inner)
            _affine((inner, 0), hidden, genomes[n], second, flat, row * width, width)
    return raw


@compiled
def _deviations_unrolled(genomes, start, vectors):
    return _deviations(genomes, start, WIDTH, vectors, WIDTH)


@compiled
def _deviations_of_any(genomes, start, width, vectors):
    return _deviations(genomes, start, width, vectors, vectors.shape[2])


def deviations(genomes: Any, start: int, width: int, vectors: Any) -> Any:
    """The stochastic head's two layers: (n, tensors, width), to which softplus is still to come."""
    if vectors.shape[2] == width == WIDTH:
        return _deviations_unrolled(genomes, start, vectors)
    return _deviations_of_any(genomes, start, width, vectors)


@inlined
def _turned(vectors):
    """Vectors (n, tensors, hidden) as flat (n, hidden, tensors), tensors padded with zeros."""
    count, tensors, hidden = vectors.shape
    width = _padded(tensors)
    turned = np.zeros(count * hidden * width, dtype=np.float32)
    for n in range(count):
        for t in range(tensors):
            for i in range(hidden):
                turned[(n * hidden + i) * width + t] = vectors[n, t, i]
    return turned


@inlined
def _rates(genome, start, hidden, turned, first, limits, floors, room, rates):
    """`rates` (tensors,) by the rate head at `start`, of the vectors from `turned[first]` on.

    `room` (padded tensors,) is for their logarithms; the others as in `mutation_rates`.
    """
    initial, low, high, fold = limits
    tensors, width = len(room), high - low
    for t in range(0, tensors, WIDTH):
        sums = splat(genome[start + hidden] + initial)
        for i in range(hidden):
            sums = add(sums, _times(splat_at(genome, start + i), turned, first + i * tensors + t))
        store_at(room, t, sums)
    for t in range(len(rates)):
        x = room[t]
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
    count, tensors, hidden = vectors.shape
    turned, room = _turned(vectors), np.empty(_padded(tensors), dtype=np.float32)
    rates = np.empty((count, tensors), dtype=np.float32)
    for n in range(count):
        first = n * hidden * len(room)
        _rates(genomes[n], start, hidden, turned, first, limits, floors, room, rates[n])
    return rates


@inlined
def _left(sigma, m, t, rate, steps):
    """What a weight is multiplied by so that its spread over many births stays the tensor's unit.

    sqrt(1 - v) for a step of variance v in squared units, as in the proposals of Cotter et al. 2013
    (arXiv:1202.0709, 'pCN'): a founder's distribution is kept at any rate. A step of more than a
    unit becomes a unit's, and nothing of the mother's tensor is left.
    """
    added, k = np.float32(0), sigma.shape[2]
    for i in range(k):
        added += sigma[m, t, i] * sigma[m, t, i]
    added *= rate * rate / np.float32(k)
    if added < 1:
        return np.float32(math.sqrt(np.float32(1) - added))
    for i in range(k):
        steps[i] /= np.float32(math.sqrt(added))
    return np.float32(0)


@compiled
def births(
    genomes,
    mothers,
    kept,
    steady,
    noise,
    sigma,
    scales,
    vectors,
    basis,
    bounds,
    rates,
    least,
    head,
    children,
):
    """`children` (n, genome_size), and in `rates` (n, tensors) those that they were made with.

    Each keeps of its mother's genome what `kept` (genome_size,) says, and where `steady` (tensors,)
    is set, as much less as its step adds. To tensor t it adds `noise`
    (n, tensors, k) times the mother's `sigma` (m, tensors, k) in units of `scales` (tensors,) times
    `rates`, through the basis. `head` is (index of the rate head's first tensor, its place, limits,
    floors, whether rates are its own). If so, the rate head's tensors, which are the last, come
    first and by the mother's rates; all others have the child's own, at least `least` (n,).
    """
    first, start, limits, floors, own = head
    tensors, hidden = vectors.shape[1:]
    k, widest = basis.shape
    columns = basis.reshape(basis.size)
    turned, room = _turned(vectors), np.empty(_padded(tensors), dtype=np.float32)
    theirs, steps = mutation_rates(genomes, start, vectors, limits, floors), np.empty(k, np.float32)
    for n in range(len(mothers)):
        m = mothers[n]
        child, mother, vector = children[n], genomes[m], m * hidden * len(room)
        if own:
            rates[n, :] = theirs[m]
        for turn in range(tensors):
            t = (first + turn) % tensors
            if t == 0 and own:
                _rates(child, start, hidden, turned, vector, limits, floors, room, rates[n])
                for i in range(tensors):
                    rates[n, i] = max(rates[n, i], least[n])
            for i in range(k):
                steps[i] = noise[n, t, i] * (sigma[m, t, i] * scales[t]) * rates[n, t]
            one = np.float32(1)
            if steady[t]:
                one = _left(sigma, m, t, rates[n, t], steps)
            left = splat(one)
            begin, end = bounds[t], bounds[t + 1]
            whole = end - (end - begin) % WIDTH
            if k == WIDTH:
                held = load_at(steps, 0)  # in registers, not read anew for every sixteen columns
                for i in range(begin, whole, WIDTH):
                    sums = mul(mul(load_at(mother, i), load_at(kept, i)), left)
                    store_at(child, i, _plus_sixteen(sums, held, columns, i - begin, widest))
            else:
                for i in range(begin, whole, WIDTH):
                    sums = mul(mul(load_at(mother, i), load_at(kept, i)), left)
                    sums = _plus_product(sums, (steps, 0), k, columns, i - begin, widest)
                    store_at(child, i, sums)
            for i in range(whole, end):
                child[i] = mother[i] * kept[i] * one
            _add_product((steps, 0), k, columns, whole - begin, widest, child, whole, end - whole)
