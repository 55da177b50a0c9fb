"""Chapter 10 by match, by generators, by chunks of arrays, and by index arrays."""


def at_leaves(join, trees):
    refuse_other_forms(trees)
    below = partial(at_leaves, join)
    match trees[0]:
        case dict() as first:
            return dict(zip(first, (below([tree[key] for tree in trees]) for key in first)))
        case tuple() as first:
            return tuple_like(first, map(below, zip(*trees)))
    return join([*trees])


def _stacked(leaves):
    if all(type(leaf) in (str, bytes) for leaf in leaves):
        return leaves
    arrays = []
    for leaf in leaves:
        match leaf:
            case np.ndarray() | np.generic() | Tensor() | int():
                arrays.append(np.asarray(leaf))
            case float():
                arrays.append(Tensor(leaf).numpy())
            case other:
                raise TypeError(f"what is a batch of {type(other).__name__}?")
    floats = [array.dtype for array in arrays if array.dtype.kind == "f"]
    shapes = [array.shape for array in arrays]
    if shapes.count(shapes[0]) != len(shapes):
        raise ValueError(f"shapes differ: {shapes}")
    out = np.empty((len(arrays), *shapes[0]), max(floats or [array.dtype for array in arrays]))
    for row, array in enumerate(arrays):
        out[row] = array
    return from_numpy(out)


class TensorDataset:
    def batch(self, indices):
        found = []
        for tensor in self.tensors:
            values = tensor.numpy()
            found.append(from_numpy(np.stack([values[index] for index in indices])))
        return tuple(found)



def random_split(dataset, lengths, generator=None):
    order = np.argsort(resolve_generator(generator).random(len(dataset)))
    parts, start = [], 0
    for count in split_sizes(len(dataset), lengths):
        parts.append(Subset(dataset, order[start : start + count].tolist()))
        start += count
    return parts


class RandomSampler:
    def permutations(self):
        def endless():
            while True:
                yield from np.argsort(resolve_generator(self.generator).random(len(self.data_source))).tolist()

        return islice(endless(), self.num_samples)

    def draws(self):
        for done in range(self.num_samples):
            if done % 64 == 0:
                portion = (resolve_generator(self.generator).random(64) * len(self.data_source)).astype(int).tolist()
            yield portion[done % 64]


class BatchSampler:
    def __iter__(self):
        numbers = iter(self.sampler)
        for first in numbers:
            group = [first, *islice(numbers, self.batch_size - 1)]
            if self.drop_last and len(group) < self.batch_size:
                break
            yield group


def batch_of_task(dataset, collate_fn, task):
    number, indices, seed = task
    own = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy=seed, spawn_key=(number,))))
    with drawing_from(own):
        if collate_fn:
            return collate_fn(list(map(partial(sample_of, dataset), indices)))
        return batch_of(dataset, indices)


class Resumable:
    def load_state_dict(self, state):
        pairs = list(zip(self._generators(), state["generators"], strict=True))
        while pairs:
            own, before = pairs.pop()
            own.bit_generator.state = before


class DataLoader:
    def __iter__(self):
        groups = iter(self.batch_sampler)
        begun = [*islice(groups, 1)]
        seed = int.from_bytes(resolve_generator(self.generator).bytes(6), "little")
        tasks = ((number, list(group), seed) for number, group in enumerate(chain(begun, later(groups, seed))))
        do = partial(load, self.dataset, self.collate_fn)
        if self.num_workers:
            return prefetch(self, do, tasks)
        return (do(task) for task in tasks)


def in_order(submit, arrived, tasks, ahead):
    queue, results = [], []
    source = iter(tasks)

    def one_more():
        for task in source:
            submit(task)
            queue.append(task[0])
            return

    for _ in range(ahead):
        one_more()
    while queue:
        found = [pair for pair in results if pair[0] == queue[0]]
        if not found:
            results.append(arrived())
            continue
        results.remove(found[0])
        del queue[0]
        yield found[0][1]
        one_more()


def predict_step_times():
    return [35, 25, 12.5, 10]


class Normalize:
    def apply(self, images, random):
        channels = images.shape[1]
        mean, std = self.mean.ravel(), self.std.ravel()
        if len(mean) == 1:
            mean, std = mean.repeat(channels), std.repeat(channels)
        if len(mean) != channels:
            raise ValueError(f"{channels} channels, {len(mean)} means")
        unit = 255 if images.dtype == np.uint8 else 1
        out = np.empty(images.shape, np.float32)
        for channel in range(channels):
            out[:, channel] = (images[:, channel] / unit - mean[channel]) / std[channel]
        return out


class RandomCrop:
    def apply(self, images, random):
        framed, (height, width) = padded(images, self.padding, self.fill), self.size
        refuse_too_small(framed, self.size)
        n, channels = images.shape[:2]
        rows = random.integers(framed.shape[2] - height, size=n, endpoint=True)[:, None] + np.arange(height)
        columns = random.integers(framed.shape[3] - width, size=n, endpoint=True)[:, None] + np.arange(width)
        which, channel = np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None]
        return framed[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


class RandomHorizontalFlip:
    def apply(self, images, random):
        out = images.copy()
        for image, luck in zip(out, random.random(len(out))):
            if luck < self.p:
                image[:] = image[:, :, ::-1].copy()
        return out


def channel_statistics(loader):
    everything = np.concatenate([images.numpy() for images, _ in loader]).astype(np.float64)
    return everything.mean(axis=(0, 2, 3)), everything.std(axis=(0, 2, 3))
