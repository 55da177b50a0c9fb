"""Chapter 04 by explicit cases, by recursion, and by NumPy's own functions."""


class SimpleModule:
    def __setattr__(self, name, value):
        if not {"_parameters", "_buffers", "_modules"} <= set(self.__dict__):
            raise AttributeError(f"{type(self).__name__}: super().__init__() has to come before {name} is assigned")
        if isinstance(value, Parameter):
            place = "_parameters"
        elif isinstance(value, SimpleModule):
            place = "_modules"
        elif value is None and name in self._parameters:
            place = "_parameters"
        elif name in self._buffers:
            place = "_buffers"
        else:
            place = None
        for drawer in ("_parameters", "_buffers", "_modules"):
            if drawer != place:
                getattr(self, drawer).pop(name, None)
        if place is None:
            object.__setattr__(self, name, value)
        else:
            self.__dict__.pop(name, None)
            getattr(self, place)[name] = value

    def __getattr__(self, name):
        own = object.__getattribute__(self, "__dict__")
        for kind in ("parameters", "buffers", "modules"):
            drawer = own.get("_" + kind)
            if drawer is not None and name in drawer:
                return drawer[name]
        raise AttributeError(f"there is no {name} in {type(self).__name__}")

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        if memo is None:
            memo = set()
        if remove_duplicate and id(self) in memo:
            return
        memo.add(id(self))
        yield prefix, self
        for name, part in self._modules.items():
            if part is None:
                continue
            path = ".".join(filter(None, [prefix, name]))
            yield from part.named_modules(memo=memo, prefix=path, remove_duplicate=remove_duplicate)

    def _named(self, drawer):
        seen = {}
        for prefix, module in self.named_modules():
            for name, tensor in vars(module)[drawer].items():
                if tensor is None or id(tensor) in seen:
                    continue
                seen[id(tensor)] = tensor
                yield ".".join(filter(None, [prefix, name])), tensor

    def state_dict(self):
        def walk(module, path):
            for drawer in (module._parameters, module._buffers):
                for name, value in drawer.items():
                    if value is not None:
                        yield path + name, value.detach()
            for name, part in module._modules.items():
                if part is not None:
                    yield from walk(part, f"{path}{name}.")

        return OrderedDict(walk(self, ""))

    def load_state_dict(self, state, strict=True):
        own, wrong = self.state_dict(), []
        if strict and set(own) - set(state):
            wrong.append("missing: " + ", ".join(sorted(set(own) - set(state))))
        if strict and set(state) - set(own):
            wrong.append("unexpected: " + ", ".join(sorted(set(state) - set(own))))
        both = [name for name in own if name in state]
        for name in both:
            if tuple(state[name].shape) != tuple(own[name].shape):
                wrong.append(f"{name} has shape {tuple(state[name].shape)} and not {own[name].shape}")
        if wrong:
            raise RuntimeError("; ".join(wrong))
        for name in both:
            own[name].writable()[...] = np.asarray(state[name])


def affine(x, weight, bias, /):
    if not x.dtype == weight.dtype == bias.dtype:
        raise TypeError(f"{x.dtype}, {weight.dtype} and {bias.dtype} are not one dtype")
    return np.add(np.matmul(x, weight.T), bias)


class Linear:
    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        Module.__init__(self)
        _refuse_sizes(in_features, out_features, device)
        self.out_features, self.in_features = out_features, in_features
        self.weight, self.bias = Parameter(zeros((out_features, in_features), dtype=dtype)), None
        if bias:
            self.bias = Parameter(zeros((out_features,), dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self):
        limit = self.in_features**-0.5
        for parameter in filter(lambda p: p is not None, (self.weight, self.bias)):
            drawn = (2 * generator().random(parameter.shape) - 1) * limit
            parameter.copy_(drawn)


def dropout(x, p=0.5, training=True):
    if p < 0 or p > 1:
        raise ValueError(f"p = {p} is no probability")
    if p == 1 and training:
        return x * 0
    if training and p:
        mask = (generator().uniform(size=x.shape) > p).astype(x.dtype)
        x = x * from_numpy(np.asarray(mask)) / (1 - p)
    return x


def predict_parameters():
    square, out = 3 * 3 + 3, 4 * 1 + 1
    return {"Listed": 0, "Twice": square, "Scaled": 2 * 2, "Replaced": out, "state": 2 + 2}


def train_perceptron(layer, x, labels, epochs=20):
    corrections = [0] * epochs
    for epoch in range(epochs):
        for i in range(x.shape[0]):
            row, label = x.numpy()[i], labels.numpy()[i]
            if layer(Tensor(row)).item() * label > 0:
                continue
            layer.weight.copy_(layer.weight.numpy() + label * row)
            layer.bias.copy_(layer.bias.numpy() + label)
            corrections[epoch] += 1
    return corrections


def count_parameters(module):
    counts = {}
    for name, part in module._modules.items():
        counts[name] = 0
        for parameter in part.parameters():
            counts[name] += parameter.numel()
    return counts


def freeze(module, prefix):
    count = 0
    for name, parameter in module.named_parameters():
        if name[: len(prefix)] == prefix:
            parameter.requires_grad = False
            count += 1
    return count
