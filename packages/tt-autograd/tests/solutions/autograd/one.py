"""Chapter 07 by multiplying with reciprocals, by one sum at a time, and by asking each tensor in turn."""


class Value:
    def backward(self, g=1.0):
        self.gradient = self.gradient + g
        for pair in self.made_of:
            pair[0].backward(pair[1] * g)


def _div_right(g, out, x, y):
    return -(g * x) / (y * y)


def _sum_vjp(g, out, x, dim=None, keepdim=False):
    zeros = np.zeros(x.shape, x.dtype)
    return zeros + with_summed_dims(g, x, dim, keepdim)


def unbroadcast(g, shape):
    while len(g.shape) > len(shape):
        g = tt.sum(g, dim=0)
    for d, n in enumerate(shape):
        if n == 1 and g.shape[d] != 1:
            g = tt.sum(g, dim=d, keepdim=True)
    return g


def _matmul_left(g, out, x, y):
    g, _, columns = _as_matrices(g, x, y)
    share = tt.matmul(g, columns.mT)
    if x.ndim == 1:
        share = share.reshape((*share.shape[:-2], x.shape[0]))
    return share


def _matmul_right(g, out, x, y):
    g, rows, _ = _as_matrices(g, x, y)
    share = tt.matmul(g.mT, rows).mT
    if y.ndim == 1:
        share = share.reshape((*share.shape[:-2], y.shape[0]))
    return share


def _relu_vjp(g, out, x):
    return kept(x > 0, g)


def _log_softmax_vjp(g, out, x, dim):
    total = tt.sum(g, dim=dim, keepdim=True)
    return g - total * tt.softmax(x, dim=dim)


def record(next, primitive, tensors, params):
    out = next(primitive, tensors, params)
    if is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return _remembered(out._array, primitive, tensors, params)
    return out


class no_grad:
    def __enter__(self):
        _mode.before += [_mode.enabled]
        _mode.enabled = bool(self._to)
        return self

    def __exit__(self, kind, error, trace):
        *_mode.before, _mode.enabled = _mode.before
        return None


class Walk:
    def arrive(self, tensor, share):
        before = self.arrived.get(id(tensor))
        self.arrived[id(tensor)] = share if before is None else before + share
        if before is None and isinstance(tensor, Traced):
            heappush(self.heap, (-tensor._made, tensor))
        elif before is None:
            self.leaves.append(tensor)

    def latest_first(self):
        while len(self.heap) > 0:
            _, node = heappop(self.heap)
            g = self.arrived.pop(id(node))
            yield node, g

    def share_out(self, node, g, useful):
        as_value = (lambda tensor: tensor._array) if self.on_arrays else (lambda tensor: tensor)
        values = tuple(map(as_value, node._inputs))
        for i, tensor in enumerate(node._inputs):
            derivative = node._rules[i]
            if derivative is None or not tensor.requires_grad:
                continue
            if useful is not None and id(tensor) not in useful:
                continue
            share = derivative(g, as_value(node), *values, **node._params)
            self.arrive(tensor, unbroadcast(share, tensor.shape))


def predict_products():
    layers = 2
    forward = layers
    backward = 2 * layers - 1
    return forward, backward, 1


def jacobian(function, x):
    outputs = function(x)
    return np.array([grad(output, x, retain_graph=True)[0].tolist() for output in outputs])


def hessian_vector_product(function, x, vector):
    first = grad(function(x), x, create_graph=True)[0]
    (product,) = grad(first, x, grad_outputs=vector)
    return product
