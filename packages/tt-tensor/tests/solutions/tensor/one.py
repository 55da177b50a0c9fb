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


class Primitive:
    def __call__(self, *tensors, **params):
        interpreter = _installed[-1] if _thread.interpreter is None else _thread.interpreter
        params = numpy_names(params)
        if all(isinstance(each, Storage) for each in tensors):
            return interpreter(self, tensors, params)
        return _call_with_non_tensors(self, tensors, params)


def evaluate(primitive, tensors, params):
    arrays = [tensor._array for tensor in tensors]
    try:
        result = primitive.kernel(*arrays, **params)
    except (IndexError, TypeError, ValueError) as problem:
        advice = _translate_error(problem, primitive, tensors, params)
    else:
        return _wrap(result)
    raise advice


@contextmanager
def interpreting(fn, backward=True):
    def top(primitive, tensors, params):
        return fn(below, primitive, tensors, params)

    kept, listened = _thread.interpreter, _thread.listening
    below = _whatever_is_installed if kept is None else kept
    _thread.interpreter = top
    if backward:
        _thread.listening = True
    try:
        yield
    finally:
        _thread.interpreter = kept
        _thread.listening = listened



def common_dtype(*tensors):
    kinds = {t.dtype.kind for t in tensors}
    best = "f" if "f" in kinds else "iu" if kinds & set("iu") else "b"
    winners = [t for t in tensors if t.dtype.kind in best]
    large = [t for t in winners if t.shape]
    return np.result_type(*[t.dtype for t in (large if large else winners)])


def div(x, y, /):
    dtype = np.result_type(x, y)
    if dtype.kind != "f":
        dtype = float32
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.true_divide(x, y, dtype=dtype)


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
    if x.ndim < 3 or y.ndim != 2:
        return np.matmul(x, y)
    rows = np.matmul(np.reshape(x, (-1 if x.size else 0, x.shape[-1])), y)
    return np.reshape(rows, (*x.shape[:-1], y.shape[-1]))


class Tensor:
    def transpose(self, dim0=-2, dim1=-1):
        first, second = resolve_dim(dim0, self.ndim), resolve_dim(dim1, self.ndim)
        swap = {first: second, second: first}
        return self.permute(*(swap.get(dim, dim) for dim in range(self.ndim)))


def sum(x, /, dim=None, keepdim=False):
    wide = x.astype(ADDED_IN[x.dtype] if x.dtype.kind == "f" else int64)
    if dim is not None:
        dim = tuple(resolve_dim(d, x.ndim) for d in ([dim] if isinstance(dim, int) else dim))
    total = np.sum(wide, axis=dim, keepdims=keepdim)
    return total.astype(x.dtype) if x.dtype.kind == "f" else total


def _centred(x, dim):
    for _ in range(2):
        x = x - mean(x, dim=dim, keepdim=True)
    return x



def predict_shapes():
    square, column = (4, 3), (4, 1)
    fitting = {"a": broadcast_shape(square, column), "c": (4, *square), "d": square[1:], "f": square}
    return {**fitting, "g": (5, 2, 3), "h": (2, 3, 3), "b": None, "e": None}


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


def pairwise_distances(x, y):
    from tt_tensor.more_ops import maximum

    of_x = (x**2).sum(dim=1).reshape(-1, 1)
    of_y = (y**2).sum(dim=1).reshape(1, -1)
    return maximum(of_x - 2 * x @ y.transpose() + of_y, 0.0) ** 0.5


def operations_of(function, *args):
    seen = []
    with interpreting(lambda next, primitive, *rest: (seen.append(primitive), next(primitive, *rest))[1]):
        function(*args)
    return [primitive.name for primitive in seen]
