"""Chapter 07 by logarithmic derivatives, by moving axes, and by working from the back."""


def _div_left(g, out, x, y):
    return g / y + 0 * x


def _div_right(g, out, x, y):
    return (g / y) * (-out)


def _sum_share(g, out, x, dim=None, keepdim=False):
    kept = out.shape
    if not keepdim:
        every = range(x.ndim) if dim is None else [d % x.ndim for d in (dim if isinstance(dim, tuple) else (dim,))]
        kept = tuple(1 if d in every else x.shape[d] for d in range(x.ndim))
    return tt.expand(g.reshape(kept), shape=x.shape)


def unbroadcast(g, shape):
    shape = tuple(shape)
    if g.shape == shape:
        return g
    front = len(g.shape) - len(shape)
    stretched = [front + d for d in range(len(shape)) if shape[d] == 1]
    g = tt.sum(g, dim=(*range(front), *stretched)) if front + len(stretched) else g
    return g.reshape(shape)


def _matmul_left(g, out, x, y):
    g, _, columns = _as_matrices(g, x, y)
    flipped = columns @ g.mT
    share = flipped.mT
    return share.reshape((*share.shape[:-2], x.shape[0])) if x.ndim < 2 else share


def _matmul_right(g, out, x, y):
    g, rows, _ = _as_matrices(g, x, y)
    share = (g.mT @ rows).mT
    return share.reshape((*share.shape[:-2], y.shape[0])) if y.ndim < 2 else share


def record(next, primitive, tensors, params):
    out = next(primitive, tensors, params)
    needed = [tensor for tensor in tensors if tensor.requires_grad]
    if not needed or not _mode.enabled:
        return out
    return _remembered(out._array, primitive, tensors, params)


class no_grad:
    def __enter__(self):
        pile = _mode.before
        pile.insert(len(pile), _mode.enabled)
        _mode.enabled = self._to

    def __exit__(self, *exception):
        modes = vars(_mode)
        modes["enabled"] = modes["before"].pop(-1)
        return False


class Walk:
    def arrive(self, tensor, share):
        if id(tensor) not in self.arrived:
            self.arrived[id(tensor)] = share
            if tensor.is_leaf:
                self.leaves.append(tensor)
                return
            heappush(self.heap, (-tensor._made, tensor))
            return
        self.arrived.update({id(tensor): share + self.arrived[id(tensor)]})

    def share_out(self, node, g, useful):
        inputs = node._inputs
        wanted = [
            i
            for i in range(len(inputs))
            if inputs[i].requires_grad and node._rules[i] is not None and (useful is None or id(inputs[i]) in useful)
        ]
        if self.on_arrays:
            call = (g, node._array, *(tensor._array for tensor in inputs))
        else:
            call = (g, node, *inputs)
        for i in reversed(wanted):
            self.arrive(inputs[i], unbroadcast(node._rules[i](*call, **node._params), inputs[i].shape))


def jacobian(function, x):
    count = function(x).numel()
    return np.vstack([grad(function(x)[i : i + 1].sum(), x)[0].numpy() for i in range(count)])


def hessian_vector_product(function, x, vector):
    first = grad(function(x), x, create_graph=True)[0]
    total = tt.sum(vector * first)
    return grad([total], [x])[0]


def softsign(x, /):
    return 1 / (1 / x + np.sign(x)) if np.all(x) else x / (1 + np.maximum(x, -x))


def _softsign_share(g, out, x):
    size = tt.abs(x)
    return g / (1 + 2 * size + x * x)
