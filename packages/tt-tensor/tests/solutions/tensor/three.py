"""Chapter 02 by other means: sums over named indices, sets of sizes, addresses in memory."""


def as_array(data, dtype=None):
    match data:
        case Storage():
            return as_array(data._array, dtype)
        case np.ndarray() | np.generic():
            wanted = data.dtype
        case _:
            wanted = _dtype_of(data)
    try:
        array = np.copy(data, order="K")
    except (ValueError, TypeError) as error:
        raise type(error)("this is no block of numbers: are all rows of one length?") from None
    if not issubclass(array.dtype.type, (np.floating, np.integer, np.bool_)):
        raise TypeError(f"numbers are wanted, and {array.dtype} is none of theirs")
    return array.astype(wanted if dtype is None else dtype)


class Primitive:
    def __call__(self, *tensors, **params):
        try:
            [tensor._array for tensor in tensors]
        except AttributeError:
            return _call_with_non_tensors(self, tensors, numpy_names(params))
        stack = [*_installed, _thread.interpreter] if _thread.interpreter else _installed
        return stack[-1](self, tensors, numpy_names(params))


def evaluate(primitive, tensors, params):
    from contextlib import contextmanager

    @contextmanager
    def words_of_ours():
        try:
            yield
        except (ValueError, TypeError, IndexError) as error:
            raise _translate_error(error, primitive, tensors, params) from None

    with words_of_ours():
        array = primitive.kernel(*[t._array for t in tensors], **params)
    out = object.__new__(Tensor)
    out._array = np.asarray(array)
    out.requires_grad = False
    out.grad = out._hooks = None
    return out


@contextmanager
def interpreting(fn, backward=True):
    state = dict(vars(_thread))
    _thread.interpreter = partial(fn, state.get("interpreter") or _whatever_is_installed)
    if backward:
        _thread.listening = backward
    try:
        yield None
    except BaseException:
        vars(_thread).clear()
        vars(_thread).update(state)
        raise
    vars(_thread).clear()
    vars(_thread).update(state)



def common_dtype(*tensors):
    floats = [t for t in tensors if t.dtype.kind == "f"]
    masks = [t for t in tensors if t.dtype == bool_]
    integers = [t for t in tensors if t.dtype.kind in "iu"]
    group = floats or integers or masks
    return np.result_type(*(t.dtype for t in filter(lambda t: t.ndim, group)), *(t.dtype for t in group if not any(
        other.ndim for other in group)))


def div(x, y, /):
    floats = [a.dtype for a in (x, y) if a.dtype.kind == "f"] or [float32]
    quotient = np.empty(np.broadcast_shapes(x.shape, y.shape), np.result_type(*floats))
    with quiet():
        np.divide(x, y, out=quotient, casting="same_kind")
    return quotient


def broadcast_shape(*shapes):
    result = ()
    for back in range(1, 1 + max(map(len, shapes), default=0)):
        sizes = {shape[-back] for shape in shapes if len(shape) >= back} - {1}
        if len(sizes) > 1:
            raise ValueError(f"shapes {' and '.join(map(str, shapes))} differ in dimension -{back}: {sorted(sizes)}")
        result = ((sizes.pop() if sizes else 1), *result)
    return result


def matmul(x, y, /):
    same_dtype(x, y)
    if x.ndim < 1 or y.ndim < 1 or x.shape[-1] != y.shape[max(y.ndim - 2, 0)]:
        raise ValueError(f"{x.shape} and {y.shape} differ in the size that is summed over")
    if y.ndim == 2 < x.ndim:
        return np.dot(as_rows(x), y).reshape(x.shape[:-1] + y.shape[1:])
    if x.ndim > 2 or y.ndim > 2:
        indices = {(True, True): "i,i->", (True, False): "i,...ij->...j", (False, True): "...ij,j->...i"}
        return np.einsum(indices.get((x.ndim == 1, y.ndim == 1), "...ij,...jk->...ik"), x, y)
    return np.tensordot(x, y, axes=(-1, max(y.ndim - 2, 0)))


class Tensor:
    def transpose(self, dim0=-2, dim1=-1):
        order = np.arange(self.ndim)
        pair = [resolve_dim(dim0, self.ndim), resolve_dim(dim1, self.ndim)]
        order[pair] = order[pair[::-1]]
        return permute(self, dims=tuple(order.tolist()))


def sum(x, /, dim=None, keepdim=False):
    dims = tuple(range(x.ndim)) if dim is None else np.atleast_1d(np.array(dim, int)).tolist()
    dims = {resolve_dim(d, x.ndim) for d in dims} if x.ndim else set()
    kept = [d for d in range(x.ndim) if d not in dims]
    wide = x.astype(float64 if x.dtype.kind == "f" else int64)
    ordered = wide.transpose(*kept, *sorted(dims))  # what disappears comes last
    total = ordered.reshape(*ordered.shape[: len(kept)], math.prod(ordered.shape[len(kept) :])).sum(axis=-1)
    total = total.astype(x.dtype) if x.dtype.kind == "f" else total
    return total.reshape([1 if d in dims else n for d, n in enumerate(x.shape)]) if keepdim else total


def _centred(x, dim):
    middle = mean(x, dim, keepdim=True)
    correction = mean(x - middle, dim, keepdim=True)
    return x - middle - correction



def predict_shapes():
    fits = "a c d f g h".split()
    shapes = [(4, 3), (4, 4, 3), (3,), (4, 3), (5, 2, 3), (2, 3, 3)]
    return {letter: shapes[fits.index(letter)] if letter in fits else None for letter in "abcdefgh"}


class Meter:
    def __call__(self, next, primitive, tensors, params):
        from numpy.lib.array_utils import byte_bounds

        def overlap(a, b):
            (a_low, a_high), (b_low, b_high) = byte_bounds(a), byte_bounds(b)
            return a_low < b_high and b_low < a_high

        out = next(primitive, tensors, params)
        arrays = [t._array for t in tensors]
        self.calls += Counter([primitive.name])
        if not any(overlap(out._array, a) for a in arrays):
            count = primitive.cost or (lambda result, *inputs, **named: result.size)
            self.multiply_adds += Counter({primitive.name: int(count(out._array, *arrays, **params))})
            self.bytes += Counter({primitive.name: int(math.fsum(a.nbytes for a in (out._array, *arrays)))})
        return out


def pairwise_distances(x, y):
    from tt_tensor.more_ops import cat, sqrt

    def row_squares(z):
        return (z * z).sum(1, keepdim=True)

    def filled(z):
        return ones(len(z), 1, dtype=z.dtype)

    left = cat([-2 * x, row_squares(x), filled(x)], 1)  # (n, d + 2)
    right = cat([y, filled(y), row_squares(y)], 1)  # (m, d + 2)
    return sqrt((left @ right.T).clip(0.0))


def operations_of(function, *args):
    from queue import SimpleQueue

    queue = SimpleQueue()

    def pass_on(next, primitive, tensors, params):
        queue.put(primitive.name)
        return next(primitive, tensors, params)

    with interpreting(pass_on):
        function(*args)
    return [queue.get() for _ in range(queue.qsize())]
