"""Chapter 02 by other means: NumPy's functions by name, results filled into arrays that were made for them."""


def as_array(data, dtype=None):
    source = data.numpy() if isinstance(data, Storage) else data
    if dtype is None:
        dtype = source.dtype if isinstance(source, (np.ndarray, np.generic)) else _dtype_of(source)
    try:
        values = np.asarray(source)
    except ValueError:
        raise ValueError("a tensor needs rows of equal lengths; these differ") from None
    if not any(np.issubdtype(values.dtype, kind) for kind in (np.integer, np.floating, np.bool_)):
        raise TypeError(f"a tensor holds real numbers, and this is {values.dtype}")
    fresh = np.empty(values.shape, dtype)
    np.copyto(fresh, values, casting="unsafe")
    return fresh


def evaluate(primitive, tensors, params):
    arrays = [tensor._array for tensor in tensors]
    try:
        result = primitive.kernel(*arrays, **params)
    except (IndexError, TypeError, ValueError) as problem:
        advice = _explained(problem, primitive, tensors, params)
    else:
        return _wrap(result)
    raise advice


def mul(x, y, /):
    return np.multiply(x, y)


def div(x, y, /):
    dtype = np.result_type(x, y)
    if dtype.kind != "f":
        dtype = float32
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.true_divide(x, y, dtype=dtype)


class Arithmetic:
    def __rsub__(self, other):
        left, right = _all_tensors((other, self))
        return sub(left, right)


class Comparing:
    def __eq__(self, other):
        if not _comparable(other):
            return NotImplemented
        return eq(self, other)


def broadcast_shape(*shapes):
    length = max(map(len, shapes), default=0)
    padded = [(1,) * (length - len(shape)) + tuple(shape) for shape in shapes]
    result = [1] * length
    for shape in padded:
        for i, size in enumerate(shape):
            if result[i] == 1:
                result[i] = size
            elif size not in (1, result[i]):
                raise ValueError(f"{shapes} do not broadcast: {result[i]} and {size} in dimension {i - length}")
    return tuple(result)


def matmul(x, y, /):
    if x.dtype != y.dtype:
        raise TypeError(f"{x.dtype} and {y.dtype} are two dtypes; convert one, by x.float() for example")
    return np.matmul(x, y)


def reshape(x, /, shape):
    return x.reshape(shape, order="C")


class Reordering:
    def transpose(self, dim0=-2, dim1=-1):
        first, second = _dim(dim0, self.ndim), _dim(dim1, self.ndim)
        swap = {first: second, second: first}
        return self.permute(*(swap.get(dim, dim) for dim in range(self.ndim)))


def sum(x, /, dim=None, keepdim=False):
    wide = x.astype(ADDED_IN[x.dtype] if x.dtype.kind == "f" else int64)
    if dim is not None:
        dim = tuple(_dim(d, x.ndim) for d in ([dim] if isinstance(dim, int) else dim))
    total = np.sum(wide, axis=dim, keepdims=keepdim)
    return total.astype(x.dtype) if x.dtype.kind == "f" else total


class Meter:
    def __call__(self, next, primitive, tensors, params):
        result = next(primitive, tensors, params)
        out, inputs = result._array, [tensor._array for tensor in tensors]
        self.calls.update([primitive.name])
        for array in inputs:
            if np.may_share_memory(array, out):
                return result
        macs = out.size if primitive.cost is None else primitive.cost(out, *inputs, **params)
        self.multiply_adds.update({primitive.name: int(macs)})
        for array in (out, *inputs):
            self.bytes.update({primitive.name: array.nbytes})
        return result


def outer(x, y):
    return x.reshape(-1, 1) * y


def pairwise_distances(x, y):
    of_x = (x**2).sum(dim=1).reshape(-1, 1)
    of_y = (y**2).sum(dim=1).reshape(1, -1)
    return more_ops.maximum(of_x - 2 * x @ y.transpose() + of_y, 0.0) ** 0.5


def operations_of(function, *args):
    seen = []
    with interpreting(lambda next, primitive, *rest: (seen.append(primitive), next(primitive, *rest))[1]):
        function(*args)
    return [primitive.name for primitive in seen]
