"""Chapter 07 by powers, by shapes counted from the right, and by a generator of shares."""


class Value:
    def backward(self, g=1.0):
        for value, slope in self.made_of:
            value.backward(slope * g)
        self.gradient += g


def _div_right(g, out, x, y):
    return 0 - g * x * y**-2


def _sum_vjp(g, out, x, dim=None, keepdim=False):
    ones = np.ones(x.shape, x.dtype)
    return with_summed_dims(g, x, dim, keepdim) * ones


def unbroadcast(g, shape):
    padded = (1,) * (len(g.shape) - len(shape)) + tuple(shape)
    dims = tuple(d for d, (have, want) in enumerate(zip(g.shape, padded)) if have != want)
    if dims:
        g = tt.sum(g, dim=dims, keepdim=True)
    return g.reshape(tuple(shape))


def _matmul_left(g, out, x, y):
    if x.ndim == 1 and y.ndim == 1:
        return g * y
    g, _, columns = _as_matrices(g, x, y)
    product = g @ columns.mT
    return product if x.ndim != 1 else product.reshape((*product.shape[:-2], product.shape[-1]))


def _matmul_right(g, out, x, y):
    if x.ndim == 1 and y.ndim == 1:
        return x * g
    g, rows, _ = _as_matrices(g, x, y)
    product = rows.mT @ g
    return product if y.ndim != 1 else product.reshape((*product.shape[:-2], product.shape[-2]))


def _relu_vjp(g, out, x):
    return kept(tt.gt(out, 0), g)


def _log_softmax_vjp(g, out, x, dim):
    return -(tt.exp(out) * tt.sum(g, dim=dim, keepdim=True) - g)


def record(next, primitive, tensors, params):
    result = next(primitive, tensors, params)
    wanted = _mode.enabled and sum(tensor.requires_grad for tensor in tensors)
    return _remembered(result._array, primitive, tensors, params) if wanted else result


class no_grad:
    def __enter__(self):
        before, _mode.enabled = _mode.enabled, self._to
        _mode.before.append(before)

    def __exit__(self, *exception):
        _mode.enabled = _mode.before[-1]
        del _mode.before[-1]


class Walk:
    def arrive(self, tensor, share):
        name = id(tensor)
        try:
            self.arrived[name] = self.arrived[name] + share
        except KeyError:
            self.arrived[name] = share
            waiting = self.leaves if tensor.is_leaf else None
            if waiting is None:
                heappush(self.heap, (-tensor._made, tensor))
            else:
                waiting.append(tensor)

    def latest_first(self):
        waiting, arrived = self.heap, self.arrived
        while waiting:
            _, node = heappop(waiting)
            yield node, arrived.pop(id(node))

    def share_out(self, node, g, useful):
        def shares():
            inputs = [tensor._array for tensor in node._inputs] if self.on_arrays else list(node._inputs)
            result = node._array if self.on_arrays else node
            for tensor, derivative in zip(node._inputs, node._rules):
                if derivative and tensor.requires_grad and (useful is None or id(tensor) in useful):
                    yield tensor, derivative(g, result, *inputs, **node._params)

        for tensor, share in shares():
            self.arrive(tensor, share if share.shape == tensor.shape else unbroadcast(share, tensor.shape))


def predict_products():
    of_weights, of_inputs = 2, 1
    return 2, of_weights + of_inputs, 1


def jacobian(function, x):
    out = function(x)
    table = np.zeros((out.numel(), x.numel()), x.dtype)
    for i, unit in enumerate(np.eye(out.numel(), dtype=x.dtype)):
        table[i] = grad(out, x, grad_outputs=Tensor(unit), retain_graph=True)[0].numpy()
    return table


def hessian_vector_product(function, x, vector):
    slope = grad(function(x), [x], create_graph=True)[0].reshape(-1)
    return grad(slope @ vector.reshape(-1), [x])[0]
