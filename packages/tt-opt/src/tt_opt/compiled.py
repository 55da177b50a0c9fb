# # Compiled
#
# An appendix of chapter 15. Here we write the work of the twins on a range of rows as plain loops, which Numba
# compiles. We need neither blocks nor scratch memory, because we finish every number before we begin the next one. The
# functions have the names and arguments of those in `fast`.

from __future__ import annotations

import ctypes
import math
import os
import re
import time
from importlib import metadata
from typing import Any

import numba as nb
import numpy as np
from llvmlite import binding as llvm
from numba.extending import intrinsic
from threadpoolctl import threadpool_info

from tt_opt import fast

# The option `nogil` lets other threads run meanwhile, and `cache` keeps the machine code on disk, so that you wait for
# the compiler only once. Of the liberties of `fastmath` we take only those that do not affect infinity and nan.

F, D = np.float32, np.float64
FREE = {"reassoc", "contract", "arcp", "nsz"}  # sums in any order; but inf and nan stay what they are
jit: Any = nb.njit(nogil=True, fastmath=FREE, cache=True, error_model="numpy")
inline: Any = nb.njit(nogil=True, fastmath=FREE, inline="always", error_model="numpy")
DIRECT = True  # images of few channels are convolved without columns
C0, C1 = F(math.sqrt(2 / math.pi)), F(math.sqrt(2 / math.pi) * 0.044715)


# ## The exponential
#
# Numba would call the C library for each exponential, one number at a time. A few products are enough instead, and the
# compiler computes them in 8 or 16 lanes at once (*SIMD*). We write $e^x = 2^n e^r$ with an integer $n$ and $|r| \le
# \frac12 \ln 2$. For the factor $2^n$ we put $n$ into the exponent bits of a float, and for $e^r$ we take a polynomial
# of degree 7 with the coefficients of the Cephes library. Its error is about that of rounding to `float32`.


@inline
def _exp(x):
    """Return e**x for x <= 0."""
    near = F(-87) if x < F(-87) else x
    n = np.floor(near * F(1.44269504) + F(0.5))
    r = near - n * F(0.693359375) - n * F(-2.12194440e-4)
    p = F(1.9875691500e-4) * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    p = p * r * r + r + F(1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(F)
    return F(0) if x < F(-87) else p * power


# ## Products
#
# Our loops cannot overtake a matrix product of BLAS, so we leave products to BLAS, with one thread each. Two
# improvements are possible. First, compiled code can call BLAS itself, in the middle of a loop. Second, there may be a
# better BLAS: on Intel's processors their own library, MKL, is faster with narrow matrices (`pip install tt-opt[mkl]`,
# 200 MB), and this set uses it where you have installed it. Its results must not depend on where an array happens to
# begin in memory, so we ask MKL to be strict about that.

SEQUENTIAL, STRICT = 1, 2 | 0x10000  # constants of MKL: one thread; the best code path, but always the same order
NAME_OF_MKL = re.compile(r"(lib)?mkl_rt\.(\d+\.)?(so|dll|dylib)(\.\d+)?")


def _mkl() -> Any:
    """Return the MKL of this environment, set to one thread, or None if it is not installed."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        return None
    paths = [str(file.locate()) for file in files if NAME_OF_MKL.fullmatch(file.name)]
    if not paths or not os.path.exists(paths[0]):
        return None
    library = ctypes.CDLL(paths[0])
    library.MKL_Set_Threading_Layer(SEQUENTIAL)
    library.MKL_CBWR_Set(STRICT)
    return library


# Without MKL we call the OpenBLAS that NumPy brings, under one of its names.


def _openblas() -> Any:
    """Return NumPy's own OpenBLAS, or None if NumPy has another BLAS."""
    for library in threadpool_info():
        if library["internal_api"] == "openblas" and "numpy" in library["filepath"]:
            return ctypes.CDLL(library["filepath"])
    return None


def _sgemm_of(library) -> Any:
    """Return cblas_sgemm of a library, with sizes of 64 bits, or None if it has no such function."""
    names = ("cblas_sgemm_64", "scipy_cblas_sgemm64_", "cblas_sgemm64_")
    return next((getattr(library, name) for name in names if hasattr(library, name)), None)


# To call it from compiled code, we declare its arguments twice: for Numba, and for `ctypes`.

MKL = _mkl()
SGEMM = _sgemm_of(MKL) or _sgemm_of(_openblas())
_T = nb.types
_matrix, _sizes = (_T.uintp, _T.int64), (_T.int64, _T.int64, _T.int64)
_signature = _T.void(_T.int32, _T.int32, _T.int32, *_sizes, _T.float32, *_matrix, *_matrix, _T.float32, *_matrix)
_gemm: Any = _T.ExternalFunction("tt_sgemm", _signature)
ROWS, PLAIN, TURNED = 101, 111, 112  # what cblas calls row-major order, a matrix and its transpose
if SGEMM is not None:
    llvm.add_symbol("tt_sgemm", ctypes.cast(SGEMM, ctypes.c_void_p).value)
    _at = [ctypes.c_void_p, ctypes.c_int64]
    SGEMM.argtypes = [*[ctypes.c_int] * 3, *[ctypes.c_int64] * 3, ctypes.c_float, *_at, *_at, ctypes.c_float, *_at]
    SGEMM.restype = None


# A product with MKL. BLAS must know how the matrices are laid out in memory.


def matmul(x, y, out):
    """Write x @ y into out, for matrices of float32; the rows of out must be contiguous."""
    if MKL is None or not x.size or not y.size:
        np.matmul(x, y, out=out)
        return
    (x, x_turned, x_step), (y, y_turned, y_step) = map(_laid_out, (x, y))
    (m, k), n = x.shape, y.shape[1]
    left, right, into = x.ctypes.data, y.ctypes.data, out.ctypes.data
    out_step = max(out.strides[0] // 4, n)
    SGEMM(ROWS, x_turned, y_turned, m, n, k, 1, left, x_step, right, y_step, 0, into, out_step)


def _laid_out(x):
    """Return a matrix that BLAS can read, whether BLAS must transpose it, and the distance of its rows (or columns)."""
    for turned, (rows, columns), (far, near) in ((PLAIN, x.shape, x.strides), (TURNED, x.shape[::-1], x.strides[::-1])):
        if (near == 4 or columns == 1) and (far >= 4 * columns or rows == 1):
            return x, turned, max(far // 4, columns) if rows > 1 else columns
    return np.ascontiguousarray(x), PLAIN, x.shape[1]


# For a few rows the loop of the definition is better, because it reads the matrix only once, in the order of memory.


@jit
def _few_rows(x, rows, start, stop, out):
    for n in range(start, stop):
        for i in range(x.shape[0]):
            total = F(0)
            for k in range(x.shape[1]):
                total += x[i, k] * rows[n, k]
            out[i, n] = total


def few_rows(x, rows, bias, start, stop, out):
    _few_rows(x, rows, start, stop, out)
    if bias is not None:
        out[:, start:stop] += bias[start:stop]


# ## Packed products
#
# We fetch the rows of a packed matrix (chapter 17) as the few bytes that they are, and turn them into numbers in
# registers. The loops go along a whole row, so that the compiler can take 8 or 16 of the small numbers at once. If a
# byte holds two numbers, we first sort the vector into their order: all elements that meet lower halves, and then all
# that meet upper halves.
#
# To widen a half precision float, we move its bits to their places in `float32` and multiply by the difference of the
# two exponents.

PACKED = ("int8", "q8_0", "q4_0", "q4_1")


@inline
def _half(bits):
    size = np.int32((np.int32(bits) & np.int32(0x7FFF)) << np.int32(13)).view(F) * F(5.192296858534828e33)
    return -size if np.int32(bits) & np.int32(0x8000) else size


@inline
def _signed(byte):
    return F(np.int32(np.int8(byte)))


@inline
def _lower(byte):
    return F(np.int32(byte & np.uint8(15)))


@inline
def _upper(byte):
    return F(np.int32(byte >> np.uint8(4)))


# Each loop takes two rows at a time, one from the first half of its range and one from the second, so it reads the
# vector once for both. More important, the matrix comes from memory in two streams: a row of 360 bytes ends before the
# processor notices that it should fetch ahead (*prefetch*), and then it waits. With two streams it waits for both at
# once. The matrices of a language model in `q4_1`, 66 MB, take 11 ms in this way, and took 15 ms row by row (one
# thread). If the number of rows is odd, we compute the last row twice.


@jit
def _int8_rows(x, data, scales, start, stop, out):
    half = (stop - start + 1) // 2
    for n in range(start, start + half):
        o = min(n + half, stop - 1)
        q, p = data[n, 4:], data[o, 4:]
        for i in range(x.shape[0]):
            total, other = F(0), F(0)
            for k in range(q.size):
                total += x[i, k] * _signed(q[k])
                other += x[i, k] * _signed(p[k])
            out[i, n], out[i, o] = total * scales[n], other * scales[o]


# `q8_0` has a scale for each block of 32 numbers.


@jit
def _q8_rows(x, data, halves, start, stop, out):
    blocks, half = x.shape[1] // 32, (stop - start + 1) // 2
    d, e = np.empty(blocks, F), np.empty(blocks, F)
    for n in range(start, start + half):
        o = min(n + half, stop - 1)
        q, p = data[n, 2 * blocks :], data[o, 2 * blocks :]
        for b in range(blocks):
            d[b], e[b] = _half(halves[n, b]), _half(halves[o, b])
        for i in range(x.shape[0]):
            total, other = F(0), F(0)
            for k in range(q.size):
                total += d[k >> 5] * (x[i, k] * _signed(q[k]))
                other += e[k >> 5] * (x[i, k] * _signed(p[k]))
            out[i, n], out[i, o] = total, other


# The formats of 4 bits have a minimum as well: that of the block, or $-8 d$. Instead of adding it to each number, we
# multiply it by the sum of the vector over the block.


@jit
def _q4_rows(x, sums, data, halves, has_minimum, start, stop, out):
    blocks, width, half = sums.shape[1], x.shape[1] // 2, (stop - start + 1) // 2
    d, e, m, l = np.empty(blocks, F), np.empty(blocks, F), np.empty(blocks, F), np.empty(blocks, F)
    first = (4 if has_minimum else 2) * blocks
    for n in range(start, start + half):
        o = min(n + half, stop - 1)
        q, p = data[n, first:], data[o, first:]
        for b in range(blocks):
            d[b], e[b] = _half(halves[n, b]), _half(halves[o, b])
        for b in range(blocks):
            m[b] = _half(halves[n, blocks + b]) if has_minimum else F(-8) * d[b]
            l[b] = _half(halves[o, blocks + b]) if has_minimum else F(-8) * e[b]
        for i in range(x.shape[0]):
            low, high, total, other = x[i, :width], x[i, width:], F(0), F(0)
            for k in range(width):
                total += d[k >> 4] * (low[k] * _lower(q[k]) + high[k] * _upper(q[k]))
                other += e[k >> 4] * (low[k] * _lower(p[k]) + high[k] * _upper(p[k]))
            for b in range(blocks):
                total += m[b] * sums[i, b]
                other += l[b] * sums[i, b]
            out[i, n], out[i, o] = total, other


# For many rows we only unpack, and leave the product to BLAS.


@jit
def _unpack_int8(data, scales, start, stop, out):
    for n in range(start, stop):
        q, row = data[n, 4:], out[n - start]
        for k in range(q.size):
            row[k] = _signed(q[k]) * scales[n]


@jit
def _unpack_q8(data, halves, start, stop, out):
    blocks = out.shape[1] // 32
    d = np.empty(blocks, F)
    for n in range(start, stop):
        q, row = data[n, 2 * blocks :], out[n - start]
        for b in range(blocks):
            d[b] = _half(halves[n, b])
        for k in range(q.size):
            row[k] = _signed(q[k]) * d[k >> 5]


# Four bits again take two numbers from each byte.


@jit
def _unpack_q4(data, halves, has_minimum, start, stop, out):
    blocks, half = out.shape[1] // 32, out.shape[1] // 2
    d, m = np.empty(blocks, F), np.empty(blocks, F)
    for n in range(start, stop):
        q = data[n, (4 if has_minimum else 2) * blocks :]
        low, high = out[n - start, :half], out[n - start, half:]
        for b in range(blocks):
            d[b] = _half(halves[n, b])
        for b in range(blocks):
            m[b] = _half(halves[n, blocks + b]) if has_minimum else F(-8) * d[b]
        for k in range(half):
            low[k] = _lower(q[k]) * d[k >> 4] + m[k >> 4]
            high[k] = _upper(q[k]) * d[k >> 4] + m[k >> 4]


# The vector is sorted once for all rows.


def in_packed_order(x, kind):
    """Return x (M, K) with its columns in the order in which `packed_rows` and `unpack` have those of packed rows."""
    if kind in ("int8", "q8_0"):
        return np.ascontiguousarray(x)
    return x.reshape(len(x), -1, 2, 16).swapaxes(1, 2).reshape(x.shape)


def _scales(data):
    return np.ascontiguousarray(data[:, :4]).view(F).ravel()


# ## Threads without Python
#
# A product of a matrix and a vector takes some ten microseconds. Python's threads are too slow for that, because it
# takes as long to wake one of them. So we do not let the other threads sleep between two products. They stay in
# compiled code, look again and again whether there is work (they *spin*), and give up after a while without work. Then
# Python must wake them with the next product.
#
# We offer a product on a *board*, an array that all threads see. It holds the addresses of the arrays, their sizes, and
# the number of the next free row. Each thread takes a few rows at a time until no rows are left. All threads change
# that number, so the change must be *atomic*: reading and adding are one step, and no other thread can come in between.
# Processors have an instruction for that. Numba has no name for it, so we ask its compiler directly.


def _adding(typing, board, place, number):
    """Add a number to board[place], atomically, and return the old value."""

    def code(context, builder, signature, arguments):
        memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(memory, [arguments[1]]), arguments[2], "seq_cst")

    return _T.int64(board, _T.int64, _T.int64), code


def _pointing(typing, address):
    """Return an address as a pointer."""
    return _T.voidptr(_T.int64), lambda context, builder, signature, arguments: builder.inttoptr(
        arguments[0], context.get_value_type(_T.voidptr)
    )


_add: Any = intrinsic(_adding)
_pointer: Any = intrinsic(_pointing)

# Which threads take part? A thread first adds 1 to `INSIDE`, and only then looks whether the board is open. The caller,
# at the end, first closes the board, and only then waits until no thread is inside. Whichever of the two comes first,
# no thread works on a closed board. So the caller may free its arrays when it returns. The elements that change often
# are 64 bytes apart, because processors exchange memory in *cache lines* of that size.

OPEN, INSIDE, TAKEN, AWAKE, JOB = 0, 8, 16, 24, 32  # places of the board
BOARD = np.zeros(64, np.int64)
LOOKS = 100_000  # times that a thread looks for work before it gives up, about a millisecond
NOTHING = np.empty(0, F)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: BOARD.fill(0))


@jit
def _take_rows(board):
    job = board[JOB:]
    kind, few, width, rows, size, step = job[0], job[1], job[2], job[3], job[4], job[5]
    x = nb.carray(_pointer(job[6]), (few, width), F)
    data = nb.carray(_pointer(job[7]), (rows, size), np.uint8)
    halves = nb.carray(_pointer(job[7]), (rows, size // 2), np.uint16)
    out = nb.carray(_pointer(job[8]), (few, rows), F)
    scales = nb.carray(_pointer(job[9]), (rows,), F)
    sums = nb.carray(_pointer(job[9]), (few, width // 32), F)
    while True:
        start = _add(board, TAKEN, step)
        if start >= rows:
            return
        stop = min(start + step, rows)
        if kind == 0:
            _int8_rows(x, data, scales, start, stop, out)
        elif kind == 1:
            _q8_rows(x, data, halves, start, stop, out)
        else:
            _q4_rows(x, sums, data, halves, kind == 3, start, stop, out)


# The caller opens the board, takes rows itself, closes the board, and waits for the others.


@jit
def _left_alone(board, looks):
    for _ in range(looks):
        if _add(board, INSIDE, 0) == 0:
            return True
    return False


@jit
def _offer(board, kind, x, data, extra, step, out):
    job = board[JOB:]
    job[0], job[1], job[2], job[3], job[4], job[5] = kind, x.shape[0], x.shape[1], data.shape[0], data.shape[1], step
    job[6], job[7], job[8], job[9] = x.ctypes.data, data.ctypes.data, out.ctypes.data, extra.ctypes.data
    board[TAKEN] = 0
    _add(board, OPEN, 1)
    _take_rows(board)
    _add(board, OPEN, -1)


# The other threads wait for an open board.


@jit
def _help(board, looks):
    _add(board, AWAKE, 1)
    left = looks
    while left > 0:
        left -= 1
        if _add(board, OPEN, 0) > 0:
            _add(board, INSIDE, 1)
            if _add(board, OPEN, 0) > 0:
                _take_rows(board)
                left = looks
            _add(board, INSIDE, -1)
    _add(board, AWAKE, -1)


# Even if Ctrl-C arrives meanwhile, the caller returns only when no thread is inside any more, because the others still
# write into its arrays. That takes long only if the system has stopped a thread in the middle of its rows in order to
# let another program run.


def packed_rows(x, data, kind, step, out):
    """Write x @ rows.T into out for x of a few rows, in packed order, and packed rows, of which a thread takes `step`
    at a time. Only one thread may call it at a time; threads that call `help_with_rows` meanwhile take part."""
    number, extra = PACKED.index(kind), NOTHING
    if number != 1:
        extra = _scales(data) if number == 0 else x.reshape(len(x), 2, -1, 16).sum((1, 3)).ravel()
    try:
        _offer(BOARD, number, x, data, extra, step, out)
    finally:
        while not _left_alone(BOARD, LOOKS):
            time.sleep(0)


def packed_rows_alone(x, data, kind, out):
    """Do the same on this thread only. Any number of threads may call it at a time."""
    if kind == "int8":
        _int8_rows(x, data, _scales(data), 0, len(data), out)
    elif kind == "q8_0":
        _q8_rows(x, data, data.view(np.uint16), 0, len(data), out)
    else:
        sums = x.reshape(len(x), 2, -1, 16).sum((1, 3))
        _q4_rows(x, sums, data, data.view(np.uint16), kind == "q4_1", 0, len(data), out)


def help_with_rows():
    """Take part in the products of other threads until none has come for a while."""
    _help(BOARD, LOOKS)


def helpers():
    """Return how many threads are ready to help."""
    return BOARD[AWAKE]


def unpack(data, kind, start, stop, out):
    """Write the packed rows from start to stop, as numbers in packed order, into out."""
    if kind == "int8":
        _unpack_int8(data, _scales(data), start, stop, out)
    elif kind == "q8_0":
        _unpack_q8(data, data.view(np.uint16), start, stop, out)
    else:
        _unpack_q4(data, data.view(np.uint16), kind == "q4_1", start, stop, out)


# ## Sparse rows
#
# We visit only the values that a sparse matrix has. For a single input we gather its numbers one by one. Several inputs
# we put into columns, so that a value meets all of them at once, in lanes.


@jit
def sparse_rows(x, values, columns, starts, start, stop, out):
    """Write x @ matrix[start:stop].T into out[:, start:stop], for x (M, K) and a matrix in compressed rows."""
    for row in range(start, stop):
        for m in range(len(x)):
            total = F(0)
            for i in range(starts[row], starts[row + 1]):
                total += F(values[i]) * x[m, columns[i]]
            out[m, row] = total


@jit
def sparse_columns(turned, values, columns, starts, start, stop, out):
    """Write matrix[start:stop] @ turned into out[start:stop], for turned (K, M)."""
    for row in range(start, stop):
        out[row] = F(0)
        for i in range(starts[row], starts[row + 1]):
            value, numbers = F(values[i]), turned[columns[i]]
            for m in range(len(numbers)):
                out[row, m] += value * numbers[m]


# ## Element by element
#
# GELU in its tanh form is $x$ times a sigmoid, because $\frac12 (1 + \tanh v) = 1 / (1 + e^{-2v})$. So our exponential
# is all we need.


@inline
def _gate(u):
    """Return (1 + tanh(C0 * u + C1 * u**3)) / 2, which is a sigmoid."""
    v = F(2) * u * (C0 + C1 * u * u)
    e = _exp(-abs(v))
    return (F(1) if v >= F(0) else e) / (F(1) + e)


@inline
def _near(x):
    return F(-40) if x < F(-40) else (F(40) if x > F(40) else x)


@jit
def _gelu(x, out):
    for i in range(x.size):
        out[i] = x[i] * _gate(_near(x[i]))


@jit
def _gelu_and_slope(x, out, slope):
    for i in range(x.size):
        u = _near(x[i])
        h = _gate(u)
        out[i] = x[i] * h
        slope[i] = h + u * h * (F(1) - h) * (F(2) * C0 + F(6) * C1 * u * u)


def gelu(x, out, slope):
    if slope is None:
        _gelu(x, out)
    else:
        _gelu_and_slope(x, out, slope)


# ReLU needs one comparison in each direction.


@jit
def relu(x, out):
    for i in range(x.size):
        out[i] = F(0) if x[i] < F(0) else x[i]


@jit
def relu_back(g, out, dx):
    for i in range(g.size):
        dx[i] = g[i] if out[i] != F(0) else F(0)


# ## Rows
#
# We take the definition of layer normalization from the chapter, with sums in `float64`, and write the values for the
# backward pass on the same trip.


@jit
def norm(x, w, b, eps, normal, slope, out):
    rows, width = x.shape
    for i in range(rows):
        total, squares = D(0), D(0)
        for j in range(width):
            total += D(x[i, j])
        mean = total / width
        for j in range(width):
            t = D(x[i, j]) - mean
            squares += t * t
        r = 1 / math.sqrt(squares / width + eps)
        slope[i] = r
        for j in range(width):
            t = F((D(x[i, j]) - mean) * r)
            normal[i, j] = t
            out[i, j] = t * w[j] + b[j]


# The backward pass of a row needs two sums along the row, and adds to the sums of weight and bias.


@jit
def _norm_back(g, w, normal, slope, dx, dw, db):
    rows, width = g.shape
    for i in range(rows):
        upper, along = F(0), F(0)
        for j in range(width):
            t = g[i, j] * w[j]
            upper += t
            along += t * normal[i, j]
            db[j] += D(g[i, j])
            dw[j] += D(g[i, j] * normal[i, j])
        upper, along = upper / F(width), along / F(width)
        for j in range(width):
            dx[i, j] = (g[i, j] * w[j] - upper - normal[i, j] * along) * slope[i]


def norm_back(g, w, normal, slope, dx):
    dw, db = np.zeros(g.shape[1], D), np.zeros(g.shape[1], D)
    _norm_back(g, w, normal, slope, dx, dw, db)
    return dw, db


# Cross-entropy and its gradient in three trips along a row.


@jit
def surprise(x, labels, weights, gradient):
    rows, width = x.shape
    loss = D(0)
    for i in range(rows):
        top = x[i, 0]
        for j in range(width):
            top = x[i, j] if x[i, j] > top else top
        total = F(0)
        for j in range(width):
            e = _exp(x[i, j] - top)
            gradient[i, j] = e
            total += e
        if weights[i] == F(0):
            for j in range(width):
                gradient[i, j] = F(0)
            continue
        loss += weights[i] * (math.log(D(total)) - D(x[i, labels[i]] - top))
        share = weights[i] / total
        for j in range(width):
            gradient[i, j] *= share
        gradient[i, labels[i]] -= weights[i]
    return loss


# Adding rows into a table is exactly its definition.


@jit
def add_rows(ids, g, table):
    for i in range(ids.size):
        for j in range(g.shape[1]):
            table[ids[i], j] += g[i, j]
    return table


# ## Attention
#
# Softmax over the keys, with the keys down, makes three trips over a block in the cache. The number of hidden keys
# changes by one from query to query, so our loops begin where the mask ends.


@jit
def softmax_down(p, first):
    batch, heads, keys, queries = p.shape
    top, total = np.empty(queries, F), np.empty(queries, F)
    for i in range(batch):
        for j in range(heads):
            top[:] = F(-np.inf)
            total[:] = F(0)
            for k in range(keys):
                for q in range(max(k - first, 0), queries):
                    top[q] = p[i, j, k, q] if p[i, j, k, q] > top[q] else top[q]
            for k in range(keys):
                start = max(k - first, 0)
                for q in range(min(start, queries)):
                    p[i, j, k, q] = F(0)
                for q in range(start, queries):
                    e = _exp(p[i, j, k, q] - top[q])
                    p[i, j, k, q] = e
                    total[q] += e
            for q in range(queries):
                total[q] = F(1) / total[q]
            for k in range(keys):
                for q in range(queries):
                    p[i, j, k, q] *= total[q]


# The backward pass makes two trips.


@jit
def softmax_down_back(p, dp):
    batch, heads, keys, queries = p.shape
    total = np.empty(queries, F)
    for i in range(batch):
        for j in range(heads):
            total[:] = F(0)
            for k in range(keys):
                for q in range(queries):
                    total[q] += p[i, j, k, q] * dp[i, j, k, q]
            for k in range(keys):
                for q in range(queries):
                    dp[i, j, k, q] = p[i, j, k, q] * (dp[i, j, k, q] - total[q])


# For a few new queries and a cache (chapter 16), we compute scores, softmax and the mean of the values for one query of
# one head after the other. The range counts heads of keys.


@jit
def look_back(q, keys, values, window, start, stop, out):
    T, H, size = q.shape
    n, share, scale = keys.shape[0], H // keys.shape[1], F(1) / F(math.sqrt(size))
    scores, mean = np.empty(n, F), np.empty(size, F)
    for t in range(T):
        last = n - T + t
        first = max(0, last - window + 1)
        for h in range(start * share, stop * share):
            g, top, total = h // share, F(-np.inf), F(0)
            for s in range(first, last + 1):
                score = F(0)
                for d in range(size):
                    score += q[t, h, d] * keys[s, g, d]
                scores[s] = score * scale
                top = scores[s] if scores[s] > top else top
            for s in range(first, last + 1):
                scores[s] = _exp(scores[s] - top)
                total += scores[s]
            for d in range(size):
                mean[d] = F(0)
            for s in range(first, last + 1):
                for d in range(size):
                    mean[d] += scores[s] * values[s, g, d]
            for d in range(size):
                out[t, h, d] = mean[d] / total


# ## Images with many channels
#
# For a filter of 3 by 3, the columns of chapter 09 hold every number of an image nine times. Here we spread out a row
# of pixels only for the three filter columns. For the three filter rows we multiply the same memory, beginning one row
# further down each time, and BLAS adds each product to the result. NumPy has no function for "multiply and add", so we
# call `cblas_sgemm` directly, as in the section on products above.


@jit
def _spread(x, pad_h, pad_w, kw, out):
    H, W, C = x.shape
    lines, places, _ = out.shape
    for y in range(lines):
        line = y - pad_h
        if line < 0 or line >= H:
            out[y] = F(0)
        else:
            for s in range(places):
                for b in range(kw):
                    z = s + b - pad_w
                    if z < 0 or z >= W:
                        for c in range(C):
                            out[y, s, b * C + c] = F(0)
                    else:
                        for c in range(C):
                            out[y, s, b * C + c] = x[line, z, c]


# An image is spread out once, and each row of the filter is one product.


@jit
def _conv(x, w, bias, pad_h, pad_w, kh, kw, out):
    n, _, _, C = x.shape
    _, oh, ow, O = out.shape
    k = kw * C
    spread = np.empty((oh + kh - 1, ow, k), F)
    for i in range(n):
        _spread(x[i], pad_h, pad_w, kw, spread)
        o = out[i]
        for r in range(oh):
            for s in range(ow):
                for c in range(O):
                    o[r, s, c] = bias[c]
        for a in range(kh):
            _gemm(ROWS, PLAIN, PLAIN, oh * ow, O, k, F(1), spread.ctypes.data + a * ow * k * 4, k,
                  w.ctypes.data + a * k * O * 4, O, F(1), o.ctypes.data, O)  # fmt: skip


def conv(x, w, bias, padding, size, out):
    _conv(x, w, np.zeros(w.shape[1], F) if bias is None else bias, *padding, *size, out)


# The gradient of the filters multiplies the same memory by the incoming gradient.


@jit
def _conv_weight(x, g, pad_h, pad_w, kh, kw, dw, db):
    n, _, _, C = x.shape
    _, oh, ow, O = g.shape
    k = kw * C
    spread, part, sums = np.empty((oh + kh - 1, ow, k), F), np.zeros((kh * k, O), F), np.empty(O, F)
    for i in range(n):
        _spread(x[i], pad_h, pad_w, kw, spread)
        gi = g[i]
        for a in range(kh):
            _gemm(ROWS, TURNED, PLAIN, k, O, oh * ow, F(1), spread.ctypes.data + a * ow * k * 4, k, gi.ctypes.data, O,
                  F(1), part.ctypes.data + a * k * O * 4, O)  # fmt: skip
        for r in range(oh):
            sums[:] = F(0)
            for s in range(ow):
                for c in range(O):
                    sums[c] += gi[r, s, c]
            for c in range(O):
                db[c] += D(sums[c])
        if i % 8 == 7 or i == n - 1:  # float64 after a few images, so that no sum in float32 grows long
            for r in range(kh * k):
                for c in range(O):
                    dw[r, c] += D(part[r, c])
                    part[r, c] = F(0)


# Both sums begin at 0.


def conv_weight(x, g, padding, size):
    dw, db = np.zeros((size[0] * size[1] * x.shape[3], g.shape[3]), D), np.zeros(g.shape[3], D)
    _conv_weight(x, g, *padding, *size, dw, db)
    return dw, db


if SGEMM is None:  # a NumPy with another BLAS: columns and a product
    conv, conv_weight = fast.conv, fast.conv_weight


# ## Images with few channels
#
# For the first layers of LeNet a matrix product is too large a tool. The seven loops of chapter 09 are better once they
# are compiled. We make two changes. First, a padded image becomes one long row, so that the innermost loop is long;
# where a window runs over the edge, it computes numbers that we never read. Second, we write out the sum over a row of
# the filter.


@jit
def _padded(x, pad_h, pad_w, out):
    C, H, W = x.shape
    width = W + 2 * pad_w
    out[:] = F(0)
    for c in range(C):
        for r in range(H):
            at = (r + pad_h) * width + pad_w
            for s in range(W):
                out[c, at + s] = x[c, r, s]


# The convolution itself: for each output channel we add up lines, and then drop what ran over the edge.


@jit
def _direct_conv(x, w, bias, pad_h, pad_w, out):
    n, C, H, W = x.shape
    O, _, kh, kw = w.shape
    _, _, oh, ow = out.shape
    width = W + 2 * pad_w
    long = oh * width
    flat, line = np.empty((C, (H + 2 * pad_h) * width + kw), F), np.empty(long, F)
    for i in range(n):
        _padded(x[i], pad_h, pad_w, flat)
        for o in range(O):
            line[:] = bias[o]
            for c in range(C):
                for a in range(kh):
                    src = flat[c, a * width :]
                    w0, w1, w2 = w[o, c, a, 0], w[o, c, a, 1], w[o, c, a, 2]
                    if kw == 5:
                        w3, w4 = w[o, c, a, 3], w[o, c, a, 4]
                        for p in range(long - 4):
                            line[p] += (
                                w0 * src[p] + w1 * src[p + 1] + w2 * src[p + 2] + w3 * src[p + 3] + w4 * src[p + 4]
                            )
                    else:
                        for p in range(long - 2):
                            line[p] += w0 * src[p] + w1 * src[p + 1] + w2 * src[p + 2]
            for r in range(oh):
                for s in range(ow):
                    out[i, o, r, s] = line[r * width + s]


def direct_conv(x, w, bias, padding, out):
    _direct_conv(x, w, bias, *padding, out)


# The gradient of a filter is a sum over all places. We keep the sums of one row of the filter in registers.


@jit
def _direct_weight(x, g, pad_h, pad_w, dw, db):
    n, C, H, W = x.shape
    O, _, kh, kw = dw.shape
    _, _, oh, ow = g.shape
    width = W + 2 * pad_w
    flat, line = np.empty((C, (H + 2 * pad_h) * width + kw), F), np.zeros(oh * width, F)
    long = oh * width - kw + 1
    for i in range(n):
        _padded(x[i], pad_h, pad_w, flat)
        for o in range(O):
            total = F(0)
            for r in range(oh):
                for s in range(ow):
                    v = g[i, o, r, s]
                    line[r * width + s] = v
                    total += v
            db[o] += D(total)
            for c in range(C):
                for a in range(kh):
                    src = flat[c, a * width :]
                    t0, t1, t2, t3, t4 = F(0), F(0), F(0), F(0), F(0)
                    if kw == 5:
                        for p in range(long):
                            v = line[p]
                            t0 += v * src[p]
                            t1 += v * src[p + 1]
                            t2 += v * src[p + 2]
                            t3 += v * src[p + 3]
                            t4 += v * src[p + 4]
                        dw[o, c, a, 3] += D(t3)
                        dw[o, c, a, 4] += D(t4)
                    else:
                        for p in range(long):
                            t0 += line[p] * src[p]
                            t1 += line[p] * src[p + 1]
                            t2 += line[p] * src[p + 2]
                    dw[o, c, a, 0] += D(t0)
                    dw[o, c, a, 1] += D(t1)
                    dw[o, c, a, 2] += D(t2)


# Both sums are in `float64`.


def direct_weight(x, g, padding, size):
    dw, db = np.zeros((g.shape[1], x.shape[1], *size), D), np.zeros(g.shape[1], D)
    _direct_weight(x, g, *padding, dw, db)
    return dw, db


# ## Pooling
#
# We keep the position of the largest number, 0 to 3. The first of equal numbers wins, and a nan wins against every
# number.


def pool_memory(shape, keep):
    return (np.empty(shape, np.uint8),)


@jit
def _pool(x, out, kept):
    n, h, w, channels = out.shape
    for i in range(n):
        for r in range(h):
            for s in range(w):
                for c in range(channels):
                    best, at = x[i, 2 * r, 2 * s, c], np.uint8(0)
                    for number, t in ((1, x[i, 2 * r, 2 * s + 1, c]), (2, x[i, 2 * r + 1, 2 * s, c]),
                                      (3, x[i, 2 * r + 1, 2 * s + 1, c])):  # fmt: skip
                        at = np.uint8(number) if t > best or t != t else at
                        best = t if t > best or t != t else best
                    out[i, r, s, c] = best
                    kept[i, r, s, c] = at


def pool(x, out, kept):
    _pool(x, out, kept[0])


# The gradient goes back to that position.


@jit
def _pool_back(g, kept, dx):
    n, h, w, channels = g.shape
    for i in range(n):
        for r in range(h):
            for s in range(w):
                for c in range(channels):
                    v, at = g[i, r, s, c], kept[i, r, s, c]
                    dx[i, 2 * r, 2 * s, c] = v if at == 0 else F(0)
                    dx[i, 2 * r, 2 * s + 1, c] = v if at == 1 else F(0)
                    dx[i, 2 * r + 1, 2 * s, c] = v if at == 2 else F(0)
                    dx[i, 2 * r + 1, 2 * s + 1, c] = v if at == 3 else F(0)


def pool_back(g, kept, dx):
    _pool_back(g, kept[0], dx)


# ## Channels
#
# For batch normalization we need sums of columns, in `float64`, and the shifts and scales that follow from them.


@jit
def _sums(x, total):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total[j] += D(x[i, j])


def sums(x):
    total = np.zeros(x.shape[1], D)
    _sums(x, total)
    return total


@jit
def _squares(x, mean, total):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            t = D(x[i, j]) - mean[j]
            total[j] += t * t


def squares(x, mean):
    total = np.zeros(x.shape[1], D)
    _squares(x, mean, total)
    return total


# With the sums known, the rest is a single trip in each direction.


@jit
def shift_scale(x, center, factor, bias, out):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - center[j]) * factor[j] + bias[j]


@jit
def _two_sums(g, x, mean, of_g, of_product):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            of_g[j] += D(g[i, j])
            of_product[j] += D(g[i, j]) * (D(x[i, j]) - mean[j])


def two_sums(g, x, mean):
    of_g, of_product = np.zeros(x.shape[1], D), np.zeros(x.shape[1], D)
    _two_sums(g, x, mean, of_g, of_product)
    return of_g, of_product


@jit
def mix(g, x, center, a, b, c, dx):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            dx[i, j] = a[j] * g[i, j] + b[j] * (x[i, j] - center[j]) + c[j]


# ## Optimizers
#
# The updates of chapter 06 make one trip, number by number. The compiler takes 8 or 16 numbers at once.


@jit
def adam(p, g, m, v, beta1, beta2, new1, new2, lr, correction1, correction2, eps, shrink, added):
    for i in range(p.size):
        gradient = g[i] if added == F(0) else g[i] + added * p[i]
        m[i] = m[i] * beta1 + gradient * new1
        v[i] = v[i] * beta2 + gradient * gradient * new2
        p[i] = p[i] * shrink - lr * (m[i] * correction1) / (math.sqrt(v[i] * correction2) + eps)


@jit
def sgd(p, g, velocity, lr, momentum, kept, decay, nesterov):
    for i in range(p.size):
        step = g[i] if decay == F(0) else g[i] + decay * p[i]
        if momentum != F(0):
            velocity[i] = velocity[i] * momentum + step * kept
            step = step + momentum * velocity[i] if nesterov else velocity[i]
        p[i] -= lr * step
