"""Chapter 18 with whole arrays: ranks, bincounts, einsum, segments."""


def magnitude_mask(x, share):
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}")
    rank = np.empty(x.size, int)
    rank[np.argsort(np.abs(x).ravel(), kind="stable")] = np.arange(x.size)
    return (rank >= round(share * x.size)).reshape(x.shape)


def prune_(model, share, together=True):
    weights = prunable(model)
    if not together:
        masks = {w: magnitude_mask(w.numpy(), share) for w in weights}
    else:
        flat = iter(magnitude_mask(np.hstack([w.numpy().reshape(-1) for w in weights]), share))
        masks = {w: np.fromiter(flat, bool, w.numel()).reshape(w.shape) for w in weights}
    for w, mask in masks.items():
        w.copy_(np.multiply(w.numpy(), mask))
    return masks


def cubic_share(share, t):
    rest = 1 - np.clip(t, 0, 1)
    return float(share - share * rest**3)


class Pruning:
    def on_step(self, run):
        way = run.steps / self.steps
        if way <= 1 and (way == 1 or not run.steps % self.every):
            self.masks = prune_(run.model, cubic_share(self.share, way), together=self.together)
            return
        for weight in self.masks:
            weight.copy_(np.where(self.masks[weight], weight.numpy(), np.float32(0)))


class CompressedRows:
    def dense(self):
        height, width = self.shape
        flat = np.zeros(height * width, self.values.dtype)
        rows = np.searchsorted(self.crow_indices, np.arange(len(self.values)), side="right") - 1
        flat[rows * width + self.col_indices.astype(np.int64)] = self.values
        return flat.reshape(height, width)


def compressed_rows(matrix):
    there = matrix != 0
    starts = np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int32)
    columns = np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)[there]
    narrow = np.iinfo(np.uint16).max >= matrix.shape[1] - 1
    return CompressedRows(matrix[there], columns.astype(np.uint16 if narrow else np.int32), starts, matrix.shape)


def sparse_product(x, values, col_indices, crow_indices, /):
    terms = x[..., col_indices] * values
    sums = np.zeros((*x.shape[:-1], terms.shape[-1] + 1), np.float64)
    np.cumsum(terms, axis=-1, dtype=np.float64, out=sums[..., 1:])
    return (sums[..., crow_indices[1:]] - sums[..., crow_indices[:-1]]).astype(x.dtype)


class SparseLinear:
    def forward(self, x):
        if self.scale is not None:
            y = self.scale * sparse_product(x, self.q, self.col_indices, self.crow_indices)
        else:
            y = sparse_product(x, self.values, self.col_indices, self.crow_indices)
        return y + self.bias if self.bias is not None else y


def smallest_outputs(layer, share):
    weight = layer.weight.detach().numpy()
    size = np.abs(weight).sum(axis=tuple(range(1, weight.ndim)))
    goes = ~magnitude_mask(size, share)
    if goes.all():
        goes[np.argmax(size)] = False
    return np.flatnonzero(goes)


class Watched:
    def forward(self, x):
        before = features_last(x.numpy(), self.layer)
        self.arrived = self.arrived | ~np.isfinite(before).all(axis=tuple(range(before.ndim - 1)))
        mixes = isinstance(self.layer, READERS)
        y = self.layer(from_numpy(np.where(np.isfinite(x.numpy()), x.numpy(), np.float32(0))) if mixes else x)
        after = np.moveaxis(features_last(y.numpy(), self.layer), -1, 0).copy()
        after[self.dyed] = self.dye
        return from_numpy(np.ascontiguousarray(np.moveaxis(after, 0, -1 if isinstance(self.layer, Linear) else 1)))


def readers(model, name, doomed, example):
    everything = dict(model.named_modules(remove_duplicate=False))
    kinds = READERS + PASSERS
    watched = {n: Watched(m) for n, m in everything.items() if isinstance(m, kinds)}
    if watched.get(name) is None:
        raise ValueError(f"{name} is none of {list(watched)}")
    watched[name].dyed = list(doomed)

    def place(of):
        for n in watched:
            parent, _, own = n.rpartition(".")
            setattr(everything[parent], own, of(n))

    place(watched.get)
    try:
        dirty = pour(model, example, list(watched.values()))
    finally:
        place(everything.get)
    dyed = {n: w.arrived for n, w in watched.items() if np.any(w.arrived)}
    if dirty or any(map(np.all, dyed.values())):
        raise ValueError(f"outputs {list(doomed)} of {name} cannot go alone")
    return {n: np.arange(arrived.size)[arrived] for n, arrived in dyed.items()}


def without_(layer, gone, dim):
    attributes = SIZES[next(filter(lambda kind: isinstance(layer, kind), SIZES))]
    stays = np.ones(getattr(layer, attributes[dim]), bool)
    stays[list(gone)] = False
    for drawer, kind in ((layer._parameters, Parameter), (layer._buffers, lambda t: t)):
        for name, tensor in list(drawer.items()):
            if tensor is not None and tensor.ndim > dim:
                drawer[name] = kind(from_numpy(np.compress(stays, tensor.detach().numpy(), axis=dim)))
    setattr(layer, attributes[dim], int(stays.sum()))


def remove_outputs_(model, name, doomed, example):
    plan = {n: (inputs, 1) for n, inputs in readers(model, name, doomed, example).items()}
    _refuse_surgery(model, [name, *plan])
    copy = deepcopy(model)
    for patient in (copy, model):
        parts = dict(patient.named_modules())
        without_(parts[name], doomed, 0)
        for n, (inputs, dim) in plan.items():
            without_(parts[n], inputs, dim * (not isinstance(parts[n], PASSERS)))
        if patient is copy:
            with no_grad(), evaluating(copy):
                copy(example)
    return model


def slim_(model, share, example, names=None):
    found = {n: m for n, m in model.named_modules() if isinstance(m, (Linear, Conv2d))}
    chosen = tuple(found)[: len(found) - 1] if names is None else tuple(names)
    for name in chosen:
        gone = smallest_outputs(found[name], share)
        model = remove_outputs_(model, name, gone, example) if gone.size else model
    return model


def smallest_heads(attention, count):
    weight = attention.c_attn.weight.detach().numpy()
    size = np.einsum("phrc->h", np.abs(weight).reshape(3, attention.n_head, -1, weight.shape[1]))
    return np.flatnonzero(~magnitude_mask(size, count / len(size))).tolist()


def remove_heads_(model, doomed):
    blocks = model.transformer.h
    old = [block.attn.n_head for block in blocks]
    stays = [sorted(set(range(n)) - set(heads)) for n, heads in zip(old, doomed)]
    if len(doomed) != len(old) or len(set(map(len, stays))) > 1 or not stays[0]:
        raise ValueError(f"these heads cannot be removed: {doomed}")
    for block, n, heads in zip(blocks, old, stays):
        gone = np.repeat(~np.isin(np.arange(n), heads), block.attn.c_proj.in_features // n)
        without_(block.attn.c_attn, np.flatnonzero(np.tile(gone, 3)), 0)
        without_(block.attn.c_proj, np.flatnonzero(gone), 1)
        block.attn = NarrowAttention.of(block.attn, len(heads))
    model.kv_heads = len(stays[0])
    return model


def low_rank(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(s[:rank])
    return u[:, :rank] * root, root[:, np.newaxis] * vt[:rank]


def ranks_for(matrices, budget):
    prices = np.array([m.shape[0] + m.shape[1] for m in matrices])
    sigmas = [np.linalg.svd(m, compute_uv=False)[1:] for m in matrices]
    owner = np.repeat(np.arange(len(matrices)), [len(s) for s in sigmas])
    worth = np.concatenate(sigmas) ** 2 / prices[owner]
    bought = owner[np.argsort(-worth, kind="stable")]
    affordable = prices.sum() + np.cumsum(prices[bought]) <= budget
    return (1 + np.bincount(bought[affordable], minlength=len(matrices))).tolist()


def factorize_(model, share):
    layers = _alone(model)
    weights = {n: layer.weight.detach().numpy() for n, layer in layers.items()}
    ranks = ranks_for(list(weights.values()), share * sum(w.size for w in weights.values()))
    parents = dict(model.named_modules())
    for n, rank in zip(weights, ranks):
        path = n.split(".")
        setattr(parents[".".join(path[:-1])], path[-1], factorized(layers[n], rank))
    return model


def distillation_loss(outputs, targets, T=4.0, alpha=0.9):
    if not T > 0:
        raise ValueError(f"T={T}")
    student, teacher = outputs
    flat = (-1, student.shape[-1])
    logs = log_softmax(student.reshape(*flat) / T, dim=-1), log_softmax(teacher.detach().reshape(*flat) / T, dim=-1)
    soft = kl_div(*logs, reduction="batchmean", log_target=True)
    hard = cross_entropy(student.reshape(*flat), targets.reshape(-1))
    return (soft * T * T - hard) * alpha + hard


def rewind_(model, start, masks):
    for name, p in model.named_parameters():
        p.copy_(start[name].numpy())
    for p, mask in masks.items():
        p.copy_(p.numpy() * mask)
    return model
