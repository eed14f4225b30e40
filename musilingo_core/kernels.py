"""Arithmetic of `packed`: a LLaMA's step on a processor, compiled by numba where it runs.

A token needs every weight once, so what counts is that their bytes are read as fast as memory gives
them. They stand in the order in which they are needed, and a thread reads one stream from its first
byte to its last, asking for what it will need in a moment. Only the innermost loops are written in
LLVM's own words, as vectors of 16; LLVM makes of them what the processor has. The rest is plain
loops. Nothing here knows PyTorch.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, config, njit, prange, set_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4  # of a block
LANES = 16  # values multiplied at once
TOGETHER = 6  # most replies for which a block is unpacked once; more would not stay in registers
STAGES = ("attend", "look", "merge", "widen", "narrow")  # of a layer
FAST = {"reassoc", "contract", "arcp", "nsz"}  # infinity and NaN stay what they are
AHEAD = 8192  # bytes: how far before its use a weight is asked for

Floats = npt.NDArray[np.float32]

_ALONE = threading.Lock()  # not every threading layer of numba takes callers from two threads


class Weights(NamedTuple):
    """All products' weights, int8, in the order in which a token needs them.

    A product's blocks of four rows follow each other. A block has for each 16 inputs 16 int8 of
    each row, and at its end four float32, the rows' scales.

    Attributes:
        stream: (bytes,) uint8.
        table: (products, 3) int64: where a product begins, how many blocks and inputs it has. There
            are four for each layer (`attend`: queries, keys and values, one below another;
            `merge`: what attention found to hidden states; `widen`: gate and up, row by row in
            turn; `narrow`: their product to hidden states), and at the end the head, hidden states
            to logits.
    """

    stream: npt.NDArray[np.uint8]
    table: npt.NDArray[np.int64]


class Frame(NamedTuple):
    """What of a language model is no product.

    Attributes:
        layers: Their number.
        cos, sin: (positions, size) float32; the first half of each sine is negative.
        heads, groups, size: Query heads, key heads, values of a head.
        eps: Of the norms.
    """

    cos: Floats
    sin: Floats
    layers: int
    heads: int
    groups: int
    size: int
    eps: float


_F32, _U8 = ir.FloatType(), ir.IntType(8)
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FLOATS, _BYTES, _INTS = (ir.VectorType(kind, LANES) for kind in (_F32, _U8, _I32))
_SCALES = ir.VectorType(_F32, ROWS)


def _intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled when it is called first; kept on disk where a place can be written to."""
    compiled = njit(fastmath=FAST, parallel="prange" in function.__code__.co_names)(function)
    with suppress(RuntimeError):  # there is no such place: compiled anew in each process
        compiled.enable_caching()
    return compiled


def _number(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _all(vector: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """A vector of the same value everywhere."""
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, nothing, _all(ir.VectorType(_I32, vector.count), 0))


def _load(builder: Any, base: Any, index: Any, vector: ir.VectorType) -> Any:
    place = builder.bitcast(builder.gep(base, [index]), vector.as_pointer())
    return builder.load(place, align=1)


def _pointers(context: Any, builder: Any, signature: Any, values: Any, count: int) -> list[Any]:
    """Where the first arguments' arrays begin."""
    pairs = list(zip(signature.args, values, strict=True))[:count]
    return [context.make_array(kind)(context, builder, value).data for kind, value in pairs]


def _total(builder: Any, vector: ir.VectorType) -> Any:
    """A variable that begins with nothing."""
    return cgutils.alloca_once_value(builder, _all(vector, 0.0))


def _call(builder: Any, name: str, result: Any, *values: Any, fast: bool = False) -> Any:
    kind = ir.FunctionType(result, [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, values, fastmath=("reassoc", "contract") if fast else ())


def _fma(builder: Any, one: Any, other: Any, more: Any) -> Any:
    return _call(builder, f"llvm.fma.v{one.type.count}f32", one.type, one, other, more)


def _ask_ahead(builder: Any, base: Any, index: Any) -> None:
    place = builder.gep(base, [builder.add(index, _number(AHEAD))])
    flags = (ir.Constant(_I32, each) for each in (0, 3, 1))  # to read, to keep, data
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), place, *flags)


def _sum(builder: Any, vector: Any) -> Any:
    name = f"llvm.vector.reduce.fadd.v{LANES}f32"
    return _call(builder, name, _F32, ir.Constant(_F32, 0.0), vector, fast=True)


def _product(replies: int) -> Any:
    """Some replies' products with a block of weights."""

    @_intrinsic
    def product(
        context: Any, stream: Any, inputs: Any, out: Any, at: Any, steps: Any, reply: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            b = builder
            stream, inputs, out = _pointers(context, b, signature, values, 3)
            at, steps, reply = values[3:]
            numbers = [b.add(reply, _number(each)) for each in range(replies)]
            totals = [[_total(b, _FLOATS) for _ in range(ROWS)] for _ in numbers]
            with cgutils.for_range(b, steps) as loop:
                here = b.add(at, b.mul(loop.index, _number(ROWS * LANES)))
                _ask_ahead(b, stream, here)
                lanes = [b.add(b.mul(number, steps), loop.index) for number in numbers]
                seen = [_load(b, inputs, b.mul(lane, _number(LANES)), _FLOATS) for lane in lanes]
                for row in range(ROWS):
                    weight = _load(b, stream, b.add(here, _number(LANES * row)), _BYTES)
                    weight = b.sitofp(b.sext(weight, _INTS), _FLOATS)
                    for x, total in zip(seen, totals, strict=True):
                        b.store(_fma(b, weight, x, b.load(total[row])), total[row])
            end = b.add(at, b.mul(steps, _number(ROWS * LANES)))
            scales = _load(b, stream, end, _SCALES)
            for number, total in zip(numbers, totals, strict=True):
                for row in range(ROWS):
                    scale = b.extract_element(scales, _I32(row))
                    place = b.add(b.mul(number, _number(ROWS)), _number(row))
                    b.store(b.fmul(scale, _sum(b, b.load(total[row]))), b.gep(out, [place]))
            return context.get_dummy_value()

        return types.void(stream, inputs, out, at, steps, reply), generate

    return product


_for_1, _for_2, _for_3, _for_4, _for_5, _for_6 = map(_product, range(1, TOGETHER + 1))


def _states(builder: Any, kind: Any, base: Any, index: Any) -> Any:
    """A vector of float32 from states that are bfloat16, in uint16, or float32."""
    if kind.dtype == types.float32:
        return _load(builder, base, index, _FLOATS)
    short = _load(builder, base, index, ir.VectorType(ir.IntType(16), LANES))
    return builder.bitcast(builder.shl(builder.zext(short, _INTS), _all(_INTS, 16)), _FLOATS)


@_intrinsic
def _dot(context: Any, query: Any, keys: Any, place: Any) -> Any:
    """The product of (size,) float32 and a row of (places, size) states."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        b = builder
        query, keys = _pointers(context, b, signature, values, 2)
        size = b.extract_value(
            context.make_array(signature.args[0])(context, b, values[0]).shape, 0
        )
        begin, total = b.mul(values[2], size), _total(b, _FLOATS)
        with cgutils.for_range(b, b.udiv(size, _number(LANES))) as loop:
            at = b.mul(loop.index, _number(LANES))
            state = _states(b, signature.args[1], keys, b.add(begin, at))
            b.store(_fma(b, _load(b, query, at, _FLOATS), state, b.load(total)), total)
        return _sum(b, b.load(total))

    return types.float32(query, keys, place), generate


@_intrinsic
def _mix(context: Any, out: Any, weight: Any, states: Any, place: Any) -> Any:
    """Adds a row of (places, size) states, with a weight, to (size,) float32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        b = builder
        out = context.make_array(signature.args[0])(context, b, values[0])
        states = context.make_array(signature.args[2])(context, b, values[2])
        size = b.extract_value(out.shape, 0)
        begin, weight = b.mul(values[3], size), _splat(b, values[1], _FLOATS)
        with cgutils.for_range(b, b.udiv(size, _number(LANES))) as loop:
            at = b.mul(loop.index, _number(LANES))
            state = _states(b, signature.args[2], states.data, b.add(begin, at))
            found = _fma(b, weight, state, _load(b, out.data, at, _FLOATS))
            place = b.bitcast(b.gep(out.data, [at]), _FLOATS.as_pointer())
            b.store(found, place, align=4)
        return context.get_dummy_value()

    return types.void(out, weight, states, place), generate


@_intrinsic
def _at(context: Any, address: Any) -> Any:
    """A pointer of an address."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@_intrinsic
def _float(context: Any, value: Any) -> Any:
    """float32 of a bfloat16, which stands in a uint16."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide = builder.shl(builder.zext(values[0], _I32), ir.Constant(_I32, 16))
        return builder.bitcast(wide, _F32)

    return types.float32(value), generate


@_intrinsic
def _bits(context: Any, value: Any) -> Any:
    """The bits of a float32, as a uint32."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], _I32)

    return types.uint32(value), generate


@_compiled
def _rounded(value, like):  # type: ignore[no-untyped-def]
    """A float32 as a state keeps it: rounded to bfloat16 (to even), or as it is."""
    if like.itemsize == 4:
        return value
    bits = _bits(value)
    return _float(np.uint16((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16))


@_compiled
def _normed(hidden, eps):  # type: ignore[no-untyped-def]
    """(replies, hidden): RMSNorm (B. Zhang, R. Sennrich, arXiv 1910.07467, equation 4).

    Its weights are in the products that follow.
    """
    out = np.empty_like(hidden)
    for reply in range(hidden.shape[0]):
        square = np.float32(0)
        for value in hidden[reply]:
            square += value * value
        scale = np.float32(1) / np.sqrt(square / np.float32(hidden.shape[1]) + np.float32(eps))
        for place in range(hidden.shape[1]):
            out[reply, place] = hidden[reply, place] * scale
    return out


@_compiled
def _block(stream, values, four, at, steps, reply, count):  # type: ignore[no-untyped-def]
    """A block's rows for some replies."""
    if count == 1:
        _for_1(stream, values, four, at, steps, reply)
    elif count == 2:
        _for_2(stream, values, four, at, steps, reply)
    elif count == 3:
        _for_3(stream, values, four, at, steps, reply)
    elif count == 4:
        _for_4(stream, values, four, at, steps, reply)
    elif count == 5:
        _for_5(stream, values, four, at, steps, reply)
    else:
        _for_6(stream, values, four, at, steps, reply)


@_compiled
def _multiply(weights, number, values, begin, end, out):  # type: ignore[no-untyped-def]
    """Writes the rows of a product's blocks from `begin` to `end` into (replies, rows)."""
    at, _, inputs = weights.table[number]
    replies, steps, size = values.shape[0], inputs // LANES, ROWS * (inputs + 4)
    four = np.empty((replies, ROWS), np.float32)
    for block in range(begin, end):
        for reply in range(0, replies, TOGETHER):
            count = min(TOGETHER, replies - reply)
            _block(weights.stream, values, four, at + block * size, steps, reply, count)
        for reply in range(replies):
            for row in range(ROWS):
                out[reply, ROWS * block + row] = four[reply, row]


@_compiled
def _turned(values, cos, sin):  # type: ignore[no-untyped-def]
    """A head's (size,) at its position: rotary embedding (J. Su et al., arXiv 2104.09864)."""
    size = values.shape[0]
    half = size // 2
    out = np.empty(size, np.float32)
    for place in range(half):
        out[place] = values[place] * cos[place] + values[place + half] * sin[place]
        out[place + half] = (
            values[place + half] * cos[place + half] + values[place] * sin[place + half]
        )
    return out


@_compiled
def _look(query, key, value, keys, values, place, out):  # type: ignore[no-untyped-def]
    """One head's attention: to the positions before `place`, in memory, and to its own."""
    size = query.shape[0]
    scores = np.empty(place + 1, np.float32)
    scale = np.float32(1) / np.sqrt(np.float32(size))
    for other in range(place):
        scores[other] = _dot(query, keys, other) * scale
    score = np.float32(0)
    for each in range(size):
        score += query[each] * key[each]
    scores[place] = score * scale
    most = scores.max()
    total = np.float32(0)
    for other in range(place + 1):
        scores[other] = np.exp(scores[other] - most)
        total += scores[other]
    found = np.empty(size, np.float32)
    for each in range(size):
        found[each] = scores[place] * value[each]
    for other in range(place):
        _mix(found, scores[other], values, other)
    for each in range(size):
        out[each] = found[each] / total


@_compiled
def _head(frame, joined, head, place, keys, values, out):  # type: ignore[no-untyped-def]
    """A head of a reply: writes its states, where it is the first of its group, and attends."""
    size, shared = frame.size, frame.heads // frame.groups
    group = head // shared
    cos, sin = frame.cos[place], frame.sin[place]
    query = _turned(joined[head * size : (head + 1) * size], cos, sin)
    at = (frame.heads + group) * size
    key = _turned(joined[at : at + size], cos, sin)
    at += frame.groups * size
    value = joined[at : at + size].copy()
    for each in range(size):
        key[each], value[each] = _rounded(key[each], keys), _rounded(value[each], keys)
    if head % shared == 0:  # nobody reads them in this pass
        _write(key, keys[group, place])
        _write(value, values[group, place])
    _look(query, key, value, keys[group], values[group], place, out)


@_compiled
def _write(states, out):  # type: ignore[no-untyped-def]
    for each in range(states.shape[0]):
        if out.itemsize == 4:
            out[each] = states[each]
        else:
            out[each] = _bits(states[each]) >> 16


@_compiled
def _share(count, thread, threads):  # type: ignore[no-untyped-def]
    """From where to where a thread does its part of so many."""
    return count * thread // threads, count * (thread + 1) // threads


@_compiled
def _add(found, begin, end, hidden):  # type: ignore[no-untyped-def]
    for reply in range(hidden.shape[0]):
        for place in range(begin, end):
            hidden[reply, place] += found[reply, place]


@_compiled
def _gate(pairs, begin, end, out):  # type: ignore[no-untyped-def]
    """SwiGLU (N. Shazeer, arXiv 2002.05202) of gates and ups that stand in turn."""
    for reply in range(pairs.shape[0]):
        for place in range(begin, end):
            gate, up = pairs[reply, 2 * place], pairs[reply, 2 * place + 1]
            out[reply, place] = gate / (np.float32(1) + np.exp(-gate)) * up


@_compiled
def _attend(frame, joined, rooms, places, wide, begin, end, heard):  # type: ignore[no-untyped-def]
    """The heads from `begin` to `end`, counted through all replies."""
    heads, groups, size = frame.heads, frame.groups, frame.size
    for task in range(begin, end):
        reply, head = task // heads, task % heads
        room = rooms[reply]
        shape = (groups, room[2], size)
        place, out = places[reply], heard[reply, head * size : (head + 1) * size]
        if wide:
            keys, values = (
                carray(_at(room[0]), shape, np.float32),
                carray(_at(room[1]), shape, np.float32),
            )
            _head(frame, joined[reply], head, place, keys, values, out)
        else:
            short_keys, short_values = (
                carray(_at(room[0]), shape, np.uint16),
                carray(_at(room[1]), shape, np.uint16),
            )
            _head(frame, joined[reply], head, place, short_keys, short_values, out)


@_compiled
def _stage(  # type: ignore[no-untyped-def]
    weights, frame, number, places, rooms, wide, thread, threads, hidden, joined, heard, found,
    pairs, gated, logits,
):  # fmt: skip
    """One thread's part of a stage; stages wait for each other, threads within one do not."""
    layer, kind = number // len(STAGES), number % len(STAGES)
    if kind == 1:
        begin, end = _share(len(places) * frame.heads, thread, threads)
        _attend(frame, joined, rooms[:, layer], places, wide, begin, end, heard)
        return
    if kind == 0:
        source, out = _normed(hidden, frame.eps), logits if layer == frame.layers else joined
    elif kind == 3:
        source, out = _normed(hidden, frame.eps), pairs
    else:
        source, out = heard if kind == 2 else gated, found
    product = number - layer - (kind > 1)  # attention has no weights
    begin, end = _share(weights.table[product, 1], thread, threads)
    _multiply(weights, product, source, begin, end, out)
    if kind == 3:
        _gate(pairs, ROWS * begin // 2, ROWS * end // 2, gated)
    elif kind > 1:
        _add(found, ROWS * begin, ROWS * end, hidden)


@_compiled
def _step(weights, frame, hidden, places, rooms, wide, threads):  # type: ignore[no-untyped-def]
    """(replies, rows of the head) logits; see `step`."""
    replies = hidden.shape[0]
    rows = ROWS * weights.table[:, 1]
    joined = np.empty((replies, rows[0]), np.float32)
    heard = np.empty((replies, frame.heads * frame.size), np.float32)
    found = np.empty((replies, rows[1]), np.float32)
    pairs = np.empty((replies, rows[2]), np.float32)
    gated = np.empty((replies, rows[2] // 2), np.float32)
    logits = np.empty((replies, rows[-1]), np.float32)
    for number in range(len(STAGES) * frame.layers + 1):
        for thread in prange(threads):
            _stage(
                weights, frame, number, places, rooms, wide, np.int64(thread), threads, hidden,
                joined, heard, found, pairs, gated, logits,
            )  # fmt: skip
    return logits


def step(
    weights: Weights,
    frame: Frame,
    hidden: Floats,
    places: npt.NDArray[np.int64],
    rooms: npt.NDArray[np.int64],
    wide: bool,
    threads: int,
) -> Floats:
    """(replies, rows of the head) float32: logits of what follows.

    Args:
        weights: Of the products.
        frame: The rest of the language model.
        hidden: (replies, hidden), embeddings of each reply's newest token; written over.
        places: (replies,), its position.
        rooms: (replies, layers, 3): addresses of a layer's keys and of its values, which are
            (key heads, room, size) contiguous, and their room; the position's are written.
        wide: Whether states are float32, not bfloat16.
        threads: At most this many compute.
    """
    threads = min(threads, config.NUMBA_NUM_THREADS)
    with _ALONE:
        set_num_threads(threads)
        logits: Floats = _step(weights, frame, hidden, places, rooms, wide, threads)
    return logits
