"""Chapter 02 by other means: by hand, from lists, pairs and strides, with little help of NumPy's."""


def as_array(data, dtype=None):
    def shape_of(part):
        if isinstance(part, (list, tuple)):
            shapes = [shape_of(each) for each in part]
            if any(shape != shapes[0] for shape in shapes):
                raise ValueError(f"rows must have equal lengths, not {shapes[0]} and others")
            return (len(part), *(shapes[0] if shapes else ()))
        return values_of(part).shape

    def values_of(part):
        array = part._array if isinstance(part, Storage) else np.asarray(part)
        if array.dtype.kind in "fiub":
            return array
        raise TypeError(f"{part!r} is no real number, and a tensor holds nothing else")

    def walk(part):
        if not isinstance(part, (list, tuple)):
            yield from values_of(part).reshape(-1).tolist()
        else:
            for each in part:
                yield from walk(each)

    if not isinstance(data, (list, tuple)):
        array = values_of(data).copy()
        if dtype is None:
            dtype = array.dtype if isinstance(data, (np.ndarray, np.generic, Storage)) else float32
        return array.astype(dtype, copy=False)
    shape = shape_of(data)
    return np.array(list(walk(data))).astype(_dtype_of(data) if dtype is None else dtype).reshape(shape)


class Primitive:
    def __call__(self, *tensors, **params):
        if {"axis", "keepdims"} & params.keys():
            params = numpy_names(params)
        strangers = [each for each in tensors if not isinstance(each, Storage)]
        call = partial(_call_with_non_tensors if strangers else (_thread.interpreter or _installed[-1]), self)
        return call(tensors, params)


def evaluate(primitive, tensors, params):
    try:
        array = primitive.kernel(*(t._array for t in tensors), **params)
    except Exception as error:
        if isinstance(error, (ValueError, TypeError, IndexError)):
            raise _translate_error(error, primitive, tensors, params) from None
        raise
    return from_numpy(array if isinstance(array, np.ndarray) else np.array(array))


@contextmanager
def interpreting(fn, backward=True):
    from contextlib import ExitStack

    with ExitStack() as stack:
        for name in ("interpreter", "listening"):
            stack.callback(setattr, _thread, name, getattr(_thread, name))
        _thread.interpreter = partial(fn, _thread.interpreter or _whatever_is_installed)
        _thread.listening |= bool(backward)
        yield



def common_dtype(*tensors):
    def rank(t):
        return RANK[t.dtype.kind], t.ndim > 0

    best = max(map(rank, tensors))
    return np.result_type(*(t.dtype for t in tensors if rank(t) == best))


def div(x, y, /):
    def fractional(array):
        return array.astype(float32) if array.dtype.kind in "iub" else array

    over, under = fractional(x), fractional(y)
    before = np.seterr(all="ignore")
    try:
        return np.divide(over, under)
    finally:
        np.seterr(**before)


def broadcast_shape(*shapes):
    from functools import reduce

    def pair(a, b):
        if len(a) < len(b):
            a, b = b, a
        if not b:
            return tuple(a)
        if a[-1] != b[-1] and 1 not in (a[-1], b[-1]):
            raise ValueError(f"shapes {' and '.join(map(str, shapes))} do not broadcast: {a[-1]} meets {b[-1]}")
        return (*pair(a[:-1], b[:-1]), b[-1] if a[-1] == 1 else a[-1])

    return reduce(pair, shapes, ())


def matmul(x, y, /):
    x, y = same_dtype(x, y)
    if x.ndim <= 2 and y.ndim <= 2:
        return np.dot(x, y) if x.ndim and y.ndim else np.matmul(x, y)
    if y.ndim == 2:
        rows = np.empty((math.prod(x.shape[:-1]), y.shape[1]), x.dtype)
        np.matmul(x.reshape(len(rows), x.shape[-1]), y, out=rows)
        return rows.reshape(x.shape[:-1] + rows.shape[1:])
    left, right = (x[None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
    stack = broadcast_shape(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, stack + left.shape[-2:])
    right = np.broadcast_to(right, stack + right.shape[-2:])
    product = np.empty((*stack, left.shape[-2], right.shape[-1]), np.result_type(x, y))
    for where in np.ndindex(*stack):
        product[where] = np.dot(left[where], right[where])
    product = product[..., 0, :] if x.ndim == 1 else product
    return product[..., 0] if y.ndim == 1 else product


class Tensor:
    def transpose(self, dim0=-2, dim1=-1):
        low, high = sorted((resolve_dim(dim0, self.ndim), resolve_dim(dim1, self.ndim)))
        dims = tuple(range(self.ndim))
        if low == high:
            return permute(self, dims=dims)
        return permute(self, dims=(*dims[:low], high, *dims[low + 1 : high], low, *dims[high + 1 :]))


def sum(x, /, dim=None, keepdim=False):
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    total = np.array(x, int64 if x.dtype.kind in "iub" else float64)
    dims = sorted((resolve_dim(d, x.ndim) for d in dims), reverse=True)
    for d in dims:  # from the last, so that the numbers of the others stay
        total = np.add.reduce(total, axis=d)
    total = total.astype(x.dtype) if x.dtype.kind == "f" else total
    if keepdim:
        total = np.reshape(total, [1 if d in dims else size for d, size in enumerate(x.shape)])
    return total


def _centred(x, dim):
    rough = sub(x, mean(x, dim, True))
    return sub(rough, mean(rough, dim, True))



def predict_shapes():
    found = {"a": (4, 3), "c": (4, 4, 3), "d": (3,), "f": (4, 3), "g": (5, 2, 3), "h": (2, 3, 3)}
    return found | dict.fromkeys("be")


class Meter:
    def __call__(self, next, primitive, tensors, params):
        def owner(array):
            return array if not isinstance(array.base, np.ndarray) else owner(array.base)

        out = next(primitive, tensors, params)
        name, moved = primitive.name, out.nbytes
        self.calls[name] = self.calls[name] + 1
        owners = {id(owner(t._array)) for t in tensors}
        for t in tensors:
            moved += t.nbytes
        if id(owner(out._array)) not in owners:
            self.bytes[name] += moved
            if primitive.cost:
                self.multiply_adds[name] += int(primitive.cost(out._array, *(t._array for t in tensors), **params))
            else:
                self.multiply_adds[name] += out.numel()
        return out


def pairwise_distances(x, y):
    from tt_tensor.more_ops import where

    centre = x.mean(0)  # distances do not depend on where zero is, and rounding is less near it
    x, y = x - centre, y - centre
    products = x @ y.mT
    squares = (x * x) @ ones(x.shape[1], 1, dtype=x.dtype) - products - products + (y * y).sum(-1)
    return where(squares > 0, squares, 0.0).sqrt()


def operations_of(function, *args):
    class Listener(list):
        def __call__(self, next, primitive, tensors, params):
            self.append(primitive.name)
            return next(primitive, tensors, params)

    listener = Listener()
    with interpreting(listener):
        function(*args)
    return list(listener)
