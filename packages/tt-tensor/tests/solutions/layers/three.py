"""Chapter 04 by sets of ids, by einsum, and by drawing in another order."""


class SimpleModule:
    def __setattr__(self, name, value):
        own = vars(self)
        if "_modules" not in own:
            raise AttributeError(f"{name} was assigned too early: begin with super().__init__()")
        chosen = self._drawer_for(name, value)
        for key in ("_parameters", "_buffers", "_modules"):
            if own[key] is not chosen and name in own[key]:
                own[key].pop(name)
        if chosen is not own:
            own.pop(name, None)
        chosen[name] = value

    def __getattr__(self, name):
        everything = {}
        for drawer in ("_modules", "_buffers", "_parameters"):
            everything.update(self.__dict__.get(drawer, {}))
        try:
            return everything[name]
        except KeyError:
            raise AttributeError(f"neither {type(self).__name__} nor its drawers have {name}") from None

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        memo, before = (set() if memo is None else memo), prefix and prefix + "."
        if not (remove_duplicate and id(self) in memo):
            memo |= {id(self)}
            yield (prefix, self)
            for name in self._modules:
                if (part := self._modules[name]) is not None:
                    yield from part.named_modules(memo, before + name, remove_duplicate)

    def _named(self, drawer):
        ids = set()
        for path, module in self.named_modules():
            tensors = getattr(module, drawer)
            for name in tensors:
                tensor = tensors[name]
                if tensor is not None and not (id(tensor) in ids or ids.add(id(tensor))):
                    yield (f"{path}.{name}", tensor) if path else (name, tensor)

    def state_dict(self):
        state = OrderedDict()
        for name, tensor in [*self._parameters.items(), *self._buffers.items()]:
            if tensor is not None:
                state[name] = tensor.detach()
        for part_name, part in self._modules.items():
            if part is not None:
                state.update((f"{part_name}.{name}", tensor) for name, tensor in part.state_dict().items())
        return state

    def load_state_dict(self, state, strict=True):
        own = self.state_dict()
        complaints = []
        for name in [*own, *(n for n in state if n not in own)]:
            if name not in state:
                complaints += [f"{name} is missing"] if strict else []
            elif name not in own:
                complaints += [f"{name} is unexpected"] if strict else []
            elif np.shape(own[name]) != np.shape(state[name]):
                complaints.append(f"{name}: {np.shape(state[name])} does not fit {np.shape(own[name])}")
        if complaints:
            raise RuntimeError(f"{type(self).__name__} cannot load this state: " + ", ".join(complaints))
        [own[name].copy_(value) for name, value in state.items() if name in own]


def affine(x, weight, bias, /):
    same_dtype(x, weight, bias)
    return np.einsum("...i,oi->...o", x, weight) + bias


class Linear:
    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        _refuse_sizes(self.in_features, self.out_features, device=device)
        self.weight = Parameter(zeros(in_features, out_features, dtype=dtype).T.contiguous())
        self.bias = None
        if bias:
            self.bias = Parameter(self.weight.data[:, 0] * 0)
        self.reset_parameters()

    def reset_parameters(self):
        limit = 1 / math.sqrt(self.in_features)
        for parameter in reversed(list(self.parameters())):
            signs = generator().integers(0, 2, parameter.shape) * 2 - 1
            parameter.copy_(signs * generator().random(parameter.shape) * limit)


def dropout(x, p=0.5, training=True):
    if abs(p - 0.5) > 0.5:
        raise ValueError(f"p is {p}; a probability is wanted, from 0 to 1")
    if training and p > 0:
        alive = generator().random(x.shape) >= p
        factors = alive.astype(x.dtype)
        if p < 1:
            factors = factors / np.asarray(1 - p, x.dtype)
        return x * from_numpy(np.ascontiguousarray(factors))
    return x


def predict_parameters():
    numbers = [0, 12, 4, 5, 4]
    return dict(zip(["Listed", "Twice", "Scaled", "Replaced", "state"], numbers))


def train_perceptron(layer, x, labels, epochs=20):
    def correct(example, label):
        if layer(example.reshape(1, -1)).item() * label > 0:
            return 0
        layer.weight.data = layer.weight.data + example.reshape(1, -1) * label
        layer.bias.data = layer.bias.data + label
        return 1

    return [sum(correct(x[i], labels[i].item()) for i in range(len(labels))) for _ in range(epochs)]


def count_parameters(module):
    return {n: sum(map(Tensor.numel, part.parameters())) for n, part in zip(module._modules, module.children())}


def freeze(module, prefix):
    names = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad = parameter.requires_grad and not name.startswith(prefix)
        names += [name] * name.startswith(prefix)
    return len(names)
