"""Chapter 18, step by step: plain loops, one decision a line."""


def magnitude_mask(x, share):
    if share < 0 or share > 1:
        raise ValueError(f"{share} is not a share")
    flat = [abs(float(value)) for value in np.asarray(x).ravel()]
    places = sorted(range(len(flat)), key=lambda i: flat[i])
    stays = [True] * len(flat)
    for place in places[: round(share * len(flat))]:
        stays[place] = False
    return np.array(stays, dtype=bool).reshape(np.shape(x))


def prune_(model, share, together=True):
    masks = {}
    everything = []
    for weight in prunable(model):
        everything.append(weight.numpy().flatten())
    common = magnitude_mask(np.concatenate(everything), share)
    start = 0
    for weight in prunable(model):
        if together:
            mask = common[start : start + weight.numel()].reshape(weight.shape)
            start += weight.numel()
        else:
            mask = magnitude_mask(weight.numpy(), share)
        masks[weight] = mask
    for weight in masks:
        weight.copy_(np.where(masks[weight], weight.numpy(), 0))
    return masks


def cubic_share(share, t):
    if t <= 0:
        return 0
    if t >= 1:
        return share
    left = (1 - t) * (1 - t) * (1 - t)
    return share * (1 - left)


class Pruning:
    def on_step(self, run):
        step = run.steps
        due = step % self.every == 0
        if step == self.steps:
            due = True
        if step > self.steps:
            due = False
        if due:
            t = step / self.steps
            self.masks = prune_(run.model, cubic_share(self.share, t), self.together)
        else:
            for weight, mask in self.masks.items():
                values = weight.numpy().copy()
                values[~mask] = 0
                weight.copy_(values)


class CompressedRows:
    def dense(self):
        matrix = np.zeros(self.shape, self.values.dtype)
        for row in range(self.shape[0]):
            for i in range(self.crow_indices[row], self.crow_indices[row + 1]):
                matrix[row, self.col_indices[i]] = self.values[i]
        return matrix


def compressed_rows(matrix):
    values, columns, starts = [], [], [0]
    for row in matrix:
        for column, value in enumerate(row):
            if value != 0:
                values.append(value)
                columns.append(column)
        starts.append(len(values))
    small = matrix.shape[1] <= 65536
    columns = np.array(columns, dtype=np.uint16 if small else np.int32)
    return CompressedRows(np.array(values, matrix.dtype), columns, np.array(starts, np.int32), matrix.shape)


def sparse_product(x, values, col_indices, crow_indices, /):
    count = len(crow_indices) - 1
    out = np.zeros((*x.shape[:-1], count), dtype=x.dtype)
    for row in range(count):
        for i in range(int(crow_indices[row]), int(crow_indices[row + 1])):
            out[..., row] += values[i] * x[..., int(col_indices[i])]
    return out


class SparseLinear:
    def forward(self, x):
        numbers = self.q if self.values is None else self.values
        out = sparse_product(x, numbers, self.col_indices, self.crow_indices)
        if self.scale is not None:
            out = out * self.scale
        if self.bias is not None:
            out = out + self.bias
        return out


def smallest_outputs(layer, share):
    sizes = []
    for row in layer.weight.detach().numpy():
        sizes.append(float(np.abs(row).sum()))
    count = round(share * len(sizes))
    if count == len(sizes):
        count -= 1
    order = sorted(range(len(sizes)), key=sizes.__getitem__)
    return np.array(sorted(order[:count]), dtype=int)


class Watched:
    def forward(self, x):
        features = features_last(x.numpy(), self.layer)
        arrived = np.array([not np.isfinite(features[..., i]).all() for i in range(features.shape[-1])])
        self.arrived = np.logical_or(self.arrived, arrived)
        if isinstance(self.layer, READERS):
            clean = x.numpy().copy()
            clean[~np.isfinite(clean)] = 0
            x = from_numpy(clean)
        out = np.array(self.layer(x).numpy())
        view = features_last(out, self.layer)
        for feature in self.dyed:
            view[..., feature] = self.dye
        return from_numpy(out)


def readers(model, name, doomed, example):
    spots = []
    for parent_name, parent in model.named_modules():
        for own, layer in parent._modules.items():
            if isinstance(layer, (*READERS, *PASSERS)):
                full = f"{parent_name}.{own}" if parent_name else own
                spots.append((full, parent, own, layer, Watched(layer, doomed if full == name else [])))
    if name not in [spot[0] for spot in spots]:
        raise ValueError(f"no layer is called {name}")
    for _, parent, own, _, watched in spots:
        setattr(parent, own, watched)
    try:
        answered = pour(model, example, [spot[-1] for spot in spots])
    finally:
        for _, parent, own, layer, _ in spots:
            setattr(parent, own, layer)
    found = {}
    for full, _, _, _, watched in spots:
        if watched.arrived.any():
            if watched.arrived.all():
                raise ValueError(f"{full} reads them mixed with others")
            found[full] = np.nonzero(watched.arrived)[0]
    if answered:
        raise ValueError("they are the answer of the model")
    return found


def without_(layer, gone, dim):
    gone = sorted({int(i) for i in gone})
    rest = None
    for name in ("weight", "bias", "running_mean", "running_var"):
        array = getattr(layer, name, None)
        if array is None or (dim == 1 and name != "weight"):
            continue
        rest = [i for i in range(array.shape[dim]) if i not in gone]
        values = from_numpy(np.take(array.detach().numpy(), rest, axis=dim))
        if name in ("weight", "bias"):
            setattr(layer, name, Parameter(values))
        else:
            layer.register_buffer(name, values)
    if isinstance(layer, Linear):
        attribute = "in_features" if dim else "out_features"
    elif isinstance(layer, Conv2d):
        attribute = "in_channels" if dim else "out_channels"
    else:
        attribute = "num_features"
    setattr(layer, attribute, getattr(layer, attribute) - len(gone))


def remove_outputs_(model, name, doomed, example):
    found = readers(model, name, doomed, example)

    def operate(patient):
        for layer_name, layer in patient.named_modules():
            if layer_name == name:
                _refuse_surgery(patient, [name])
                without_(layer, doomed, 0)
            if layer_name in found:
                _refuse_surgery(patient, [layer_name])
                without_(layer, found[layer_name], 0 if isinstance(layer, BatchNorm) else 1)

    trial = deepcopy(model)
    operate(trial)
    with evaluating(trial), no_grad():
        trial(example)
    operate(model)
    return model


def slim_(model, share, example, names=None):
    layers = {}
    for name, layer in model.named_modules():
        if isinstance(layer, READERS):
            layers[name] = layer
    if names is None:
        names = list(layers)
        names.pop()
    for name in names:
        doomed = smallest_outputs(layers[name], share)
        if len(doomed) > 0:
            remove_outputs_(model, name, doomed, example)
    return model


def smallest_heads(attention, count):
    weight = attention.c_attn.weight.detach().numpy()
    width = len(weight) // 3
    size = width // attention.n_head
    sums = []
    for head in range(attention.n_head):
        total = 0.0
        for part in range(3):
            start = part * width + head * size
            total += float(np.abs(weight[start : start + size]).sum())
        sums.append((total, head))
    return sorted(head for _, head in sorted(sums)[:count])


def remove_heads_(model, doomed):
    blocks = list(model.transformer.h)
    if len(doomed) != len(blocks):
        raise ValueError("a list for each block, please")
    counts = [block.attn.n_head - len(set(heads)) for block, heads in zip(blocks, doomed)]
    for count in counts:
        if count != counts[0] or count < 1:
            raise ValueError("each block must keep the same number of heads, and at least one")
    for block, heads in zip(blocks, doomed):
        attention = block.attn
        width = attention.c_proj.in_features
        size = width // attention.n_head
        columns = []
        for head in sorted(set(heads)):
            columns.extend(range(head * size, head * size + size))
        rows = columns + [width + i for i in columns] + [2 * width + i for i in columns]
        without_(attention.c_attn, rows, 0)
        without_(attention.c_proj, columns, 1)
        block.attn = NarrowAttention.of(attention, counts[0])
    model.kv_heads = counts[0]
    return model


def low_rank(matrix, rank):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    right = np.zeros((rank, matrix.shape[1]), matrix.dtype)
    for i in range(rank):
        right[i] = s[i] * vt[i]
    return u[:, :rank], right


def ranks_for(matrices, budget):
    ranks = [1 for _ in matrices]
    spent = sum(m.shape[0] + m.shape[1] for m in matrices)
    values = [np.linalg.svd(m)[1] for m in matrices]
    while True:
        best, saving = None, -1.0
        for i, matrix in enumerate(matrices):
            if ranks[i] < len(values[i]):
                offer = float(values[i][ranks[i]]) ** 2 / (matrix.shape[0] + matrix.shape[1])
                if offer >= saving:
                    best, saving = i, offer
        if best is None:
            return ranks
        spent += sum(matrices[best].shape)
        if spent > budget:
            return ranks
        ranks[best] += 1


def factorize_(model, share):
    owners = []
    for module in model.modules():
        for name, layer in module._modules.items():
            if type(layer) is Linear:
                owners.append((module, name, layer))
    used = [id(tensor) for module in model.modules() for tensor in module._parameters.values() if tensor is not None]
    alone = [(parent, name, layer) for parent, name, layer in owners if used.count(id(layer.weight)) == 1]
    matrices = [layer.weight.detach().numpy() for _, _, layer in alone]
    total = sum(matrix.size for matrix in matrices)
    for (parent, name, layer), rank in zip(alone, ranks_for(matrices, share * total)):
        setattr(parent, name, factorized(layer, rank))
    return model


def distillation_loss(outputs, targets, T=4.0, alpha=0.9):
    if T <= 0:
        raise ValueError("no temperature is 0 or less")
    student, teacher = outputs
    classes = student.shape[-1]
    student = student.reshape(-1, classes)
    teacher = teacher.detach().reshape(-1, classes)
    wanted = softmax(teacher / T, 1)
    given = log_softmax(student / T, 1)
    divergence = (wanted * (log_softmax(teacher / T, 1) - given)).sum() / len(student)
    return alpha * T**2 * divergence + (1 - alpha) * cross_entropy(student, targets.reshape(-1))


def rewind_(model, start, masks):
    for name, parameter in model.named_parameters():
        values = start[name].numpy().copy()
        if parameter in masks:
            values[~masks[parameter]] = 0
        parameter.copy_(values)
    return model
