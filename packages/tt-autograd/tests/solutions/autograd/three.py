"""Chapter 07 by logarithmic derivatives, by moving axes, and by working from the back."""


class Value:
    def backward(self, g=1.0):
        waiting = [(self, g)]
        while waiting:
            value, g = waiting.pop()
            value.gradient += g
            waiting.extend((made_of, g * slope) for made_of, slope in value.made_of)


def _div_right(g, out, x, y):
    return (g / y) * (-out)


def _sum_vjp(g, out, x, dim=None, keepdim=False):
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


def _relu_vjp(g, out, x):
    return kept(tt.logical_not(x <= 0), g)


def _log_softmax_vjp(g, out, x, dim):
    p = tt.exp(x - tt.amax(x, dim=dim, keepdim=True))
    p = p / tt.sum(p, dim=dim, keepdim=True)
    return g - p * tt.sum(g, dim=dim, keepdim=True)


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

    def latest_first(self):
        def pairs():
            while self.heap:
                yield heappop(self.heap)[-1]

        for node in pairs():
            yield node, self.arrived.pop(id(node))

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


def predict_products():
    return sum([1, 1]), sum([1, 2]), sum([1])


def jacobian(function, x):
    count = function(x).numel()
    return np.vstack([grad(function(x)[i : i + 1].sum(), x)[0].numpy() for i in range(count)])


def hessian_vector_product(function, x, vector):
    first = grad(function(x), x, create_graph=True)[0]
    total = tt.sum(vector * first)
    return grad([total], [x])[0]
