"""Chapter 18 once more: sorted keys, parts of parts, eigenvectors, one offer at a time."""


def magnitude_mask(x, share):
    if share != min(max(share, 0), 1):
        raise ValueError(f"from 0 to 1, not {share}")
    flat = np.square(np.asarray(x, np.float64)).reshape(-1)
    order = np.lexsort((np.arange(flat.size), flat))
    mask = np.zeros(flat.size, dtype=bool)
    np.put(mask, order[round(share * flat.size) :], True)
    return np.reshape(mask, np.shape(x))


def prune_(model, share, together=True):
    weights = prunable(model)
    groups = [weights] if together else [[weight] for weight in weights]
    masks = {}
    for group in groups:
        mask = magnitude_mask(np.concatenate([weight.numpy().ravel() for weight in group]), share)
        for weight in group:
            masks[weight], mask = mask[: weight.numel()].reshape(weight.shape), mask[weight.numel() :]
            weight.copy_(weight.numpy() * masks[weight].astype(weight.dtype))
    return masks


def cubic_share(share, t):
    t = sorted((0, t, 1))[1]
    return share * t * (3 - 3 * t + t * t)


class Pruning:
    def on_step(self, run):
        def hold():
            for weight, mask in self.masks.items():
                weight.copy_(mask * weight.numpy())

        over = run.steps > self.steps
        last = run.steps == self.steps
        if over or not (last or run.steps % self.every == 0):
            hold()
        else:
            self.masks.update(prune_(run.model, cubic_share(self.share, run.steps / self.steps), self.together))


class CompressedRows:
    def dense(self):
        rows = []
        for start, stop in pairwise(self.crow_indices):
            row = np.zeros(self.shape[1], self.values.dtype)
            np.put(row, self.col_indices[start:stop], self.values[start:stop])
            rows.append(row)
        return np.array(rows).reshape(self.shape)


def compressed_rows(matrix):
    columns = [np.flatnonzero(row) for row in matrix]
    starts = np.zeros(len(matrix) + 1, np.int32)
    for r, found in enumerate(columns):
        starts[r + 1] = starts[r] + len(found)
    where = np.concatenate([np.zeros(0, int), *columns])
    values = np.concatenate([matrix[0, :0], *(row[found] for row, found in zip(matrix, columns))])
    return CompressedRows(values, where.astype("u2" if matrix.shape[1] < 65537 else "i4"), starts, tuple(matrix.shape))


def sparse_product(x, values, col_indices, crow_indices, /):
    dense = CompressedRows(values, col_indices, crow_indices, (len(crow_indices) - 1, x.shape[-1])).dense()
    return np.matmul(x, dense.T.astype(x.dtype))


class SparseLinear:
    def forward(self, x):
        product = functools.partial(sparse_product, x)
        where = self.col_indices, self.crow_indices
        y = product(self.q, *where) * self.scale if self.values is None else product(self.values, *where)
        for bias in filter(lambda b: b is not None, [self.bias]):
            y = y + bias
        return y


def smallest_outputs(layer, share):
    rows = np.abs(layer.weight.detach().numpy().astype(np.float64)).reshape(layer.weight.shape[0], -1)
    order = np.lexsort((np.arange(len(rows)), rows.sum(-1)))
    return np.array(sorted(order[: min(len(rows) - 1, round(share * len(rows)))]), int)


class Watched:
    def forward(self, x):
        values = x.numpy()
        for i, feature in enumerate(np.moveaxis(features_last(values, self.layer), -1, 0)):
            if not np.size(self.arrived) > 1:
                self.arrived = np.zeros(features_last(values, self.layer).shape[-1], bool)
            self.arrived[i] |= bool(np.isnan((feature - feature).sum()))
        if not isinstance(self.layer, PASSERS):
            values = np.where(np.abs(values) < math.inf, values, 0).astype(values.dtype)
        out = self.layer(from_numpy(values)).numpy()
        dye = np.zeros(features_last(out, self.layer).shape[-1], out.dtype)
        dye[self.dyed] = self.dye
        if not isinstance(self.layer, Linear):
            dye = dye.reshape(-1, *[1] * (out.ndim - 2))
        return from_numpy(out + dye)


def readers(model, name, doomed, example):
    def watch(parent, prefix):
        for own, child in list(parent._modules.items()):
            if isinstance(child, READERS + PASSERS):
                full = prefix + own
                put.append((full, parent, own, Watched(child, doomed if full == name else ())))
                parent._modules[own] = put[-1][-1]
            elif child is not None:
                watch(child, f"{prefix}{own}.")

    put, reached = [], None
    watch(model, "")
    try:
        if all(full != name for full, *_ in put):
            raise ValueError(f"{name!r}?")
        reached = pour(model, example, [watched for *_, watched in put])
    finally:
        for _, parent, own, watched in put:
            parent._modules[own] = watched.layer
    found = {full: np.where(watched.arrived)[0] for full, _, _, watched in put if watched.arrived.sum()}
    mixed = [full for full, _, _, watched in put if watched.arrived.mean() == 1]
    if mixed or reached:
        raise ValueError(f"{name} cannot be cut: {mixed or 'its outputs are the answer'}")
    return found


def without_(layer, gone, dim):
    def cut(name):
        array = np.moveaxis(getattr(layer, name).detach().numpy(), dim, 0)
        rest = np.moveaxis(array[[i for i in range(len(array)) if i not in set(gone)]], 0, dim)
        return from_numpy(np.ascontiguousarray(rest))

    for name in ["weight", "bias"][: 2 - dim]:
        if getattr(layer, name) is not None:
            setattr(layer, name, Parameter(cut(name)))
    if isinstance(layer, BatchNorm):
        for name in ("running_mean", "running_var"):
            if getattr(layer, name) is not None:
                setattr(layer, name, cut(name))
    for kind, names in SIZES.items():
        if isinstance(layer, kind):
            vars(layer)[names[dim]] -= len(gone)


def remove_outputs_(model, name, doomed, example):
    cuts = [(name, doomed, 0)]
    for reader, inputs in readers(model, name, doomed, example).items():
        passes = isinstance(dict(model.named_modules())[reader], PASSERS)
        cuts.append((reader, inputs, 0 if passes else 1))

    def operated(patient):
        for n, gone, dim in cuts:
            layer = functools.reduce(getattr, n.split("."), patient)
            without_(layer, gone, dim)
        return patient

    _refuse_surgery(model, [n for n, _, _ in cuts])
    with no_grad():
        evaluating_copy = operated(deepcopy(model)).eval()
        evaluating_copy(example)
    return operated(model)


def slim_(model, share, example, names=None):
    if names is None:
        *names, _ = [n for n, m in model.named_modules() if isinstance(m, READERS)]
    for name in names:
        layer = functools.reduce(getattr, name.split("."), model)
        doomed = smallest_outputs(layer, share)
        if doomed.any() or len(doomed):
            remove_outputs_(model, name, doomed, example)
    return model


def smallest_heads(attention, count):
    groups = np.array_split(np.abs(attention.c_attn.weight.detach().numpy()).sum(1), 3 * attention.n_head)
    size = np.array([group.sum() for group in groups]).reshape(3, -1).sum(0)
    return sorted(int(h) for h in np.argpartition(size, count - 1)[:count])


def remove_heads_(model, doomed):
    blocks = list(model.transformer.h)
    kept = [np.setdiff1d(np.arange(block.attn.n_head), heads) for block, heads in zip(blocks, doomed)]
    fits = len(blocks) == len(doomed) and len({len(heads) for heads in kept}) == 1 and len(kept[0]) > 0
    if not fits:
        raise ValueError(f"{doomed} does not fit {len(blocks)} blocks")
    for block, heads in zip(blocks, kept):
        old, places = block.attn, np.arange(block.attn.c_attn.out_features)
        head_of = places.reshape(3, old.n_head, -1)
        gone = np.setdiff1d(places, head_of[:, heads])
        without_(old.c_attn, gone, 0)
        without_(old.c_proj, gone[gone < old.c_proj.in_features], 1)
        block.attn = NarrowAttention.of(old, len(heads))
        model.kv_heads = len(heads)
    return model


def low_rank(matrix, rank):
    # The eigenvectors of the smaller Gram matrix, largest last.
    tall = matrix.shape[0] > matrix.shape[1]
    wide = np.asarray(matrix.T if tall else matrix, np.float64)
    _, vectors = np.linalg.eigh(wide @ wide.T)
    basis = vectors[:, ::-1][:, :rank]
    left, right = (basis.T @ wide).T if tall else basis, basis.T if tall else basis.T @ wide
    return left.astype(matrix.dtype), right.astype(matrix.dtype)


def ranks_for(matrices, budget):
    spectra = [np.linalg.svd(m, compute_uv=False) for m in matrices]
    price = [sum(m.shape) for m in matrices]
    ranks, left = [1 for _ in price], budget - sum(price)

    def offer(i):
        rank = ranks[i]
        return spectra[i][rank] ** 2 / price[i] if rank < len(spectra[i]) else -math.inf

    while matrices:
        i = max(range(len(price)), key=offer)
        if offer(i) == -math.inf or price[i] > left:
            break
        ranks[i], left = ranks[i] + 1, left - price[i]
    return ranks


def factorize_(model, share):
    numbers = [id(m.weight) for m in model.modules() if "weight" in m._parameters]
    found = [
        (parent, own) for parent in model.modules() for own, m in parent._modules.items()
        if type(m) is Linear and numbers.count(id(m.weight)) < 2
    ]  # fmt: skip
    layers = [parent._modules[own] for parent, own in found]
    budget = share * sum(layer.weight.numel() for layer in layers)
    ranks = ranks_for([layer.weight.detach().numpy() for layer in layers], budget)
    for (parent, own), layer, rank in zip(found, layers, ranks):
        parent._modules[own] = factorized(layer, rank)
    return model


def distillation_loss(outputs, targets, T=4.0, alpha=0.9):
    if math.isnan(T) or T <= 0:
        raise ValueError(f"a temperature of {T}")
    student, teacher = [z.reshape(math.prod(z.shape[:-1]), z.shape[-1]) for z in outputs]
    p = softmax(teacher.detach() / T, -1)
    entropy = -(p * p.log()).sum()
    soft = -(p * log_softmax(student / T, -1)).sum() - entropy
    hard = -log_softmax(student, -1)[np.arange(len(student)), targets.reshape(-1).numpy()].mean()
    return soft * (T * T * alpha / len(student)) + hard * (1 - alpha)


def rewind_(model, start, masks):
    parameters = dict(model.named_parameters())
    for name in parameters:
        p = parameters[name]
        p.copy_(np.where(masks.get(p, True), start[name].numpy(), 0))
    return model
