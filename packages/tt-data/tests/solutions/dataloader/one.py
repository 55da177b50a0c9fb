"""Chapter 10 by np.array, by index lists, by counting down, and by a loop over offsets."""


def at_leaves(join, trees):
    refuse_other_forms(trees)
    if isinstance(trees[0], tuple):
        parts = []
        for place in range(len(trees[0])):
            parts.append(at_leaves(join, [tree[place] for tree in trees]))
        return tuple_like(trees[0], parts)
    if not isinstance(trees[0], dict):
        return join([*trees])
    joined = {}
    for key in trees[0]:
        joined[key] = at_leaves(join, [tree[key] for tree in trees])
    return joined


def _stacked(leaves):
    if all(isinstance(leaf, (str, bytes)) for leaf in leaves):
        return list(leaves)
    arrays = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            arrays.append(leaf.numpy())
        elif isinstance(leaf, (np.ndarray, np.generic)):
            arrays.append(np.array(leaf))
        elif isinstance(leaf, (bool, int)):
            arrays.append(np.array(leaf))
        elif isinstance(leaf, float):
            arrays.append(np.float32(leaf))
        else:
            raise TypeError(f"no batch can be made of {type(leaf)}")
    kinds = [array.dtype for array in arrays]
    wide = np.result_type(*([kind for kind in kinds if np.issubdtype(kind, np.floating)] or kinds))
    for array in arrays[1:]:
        if array.shape != arrays[0].shape:
            raise ValueError(f"{array.shape} does not fit {arrays[0].shape}")
    return from_numpy(np.concatenate([array[None] for array in arrays]).astype(wide))


class TensorDataset:
    def batch(self, indices):
        return tuple(from_numpy(np.take(tensor.numpy(), list(indices), axis=0)) for tensor in self.tensors)



def random_split(dataset, lengths, generator=None):
    sizes = split_sizes(len(dataset), lengths)
    order = resolve_generator(generator).permutation(len(dataset))
    ends = np.cumsum(sizes)
    return [Subset(dataset, [int(i) for i in order[end - size : end]]) for size, end in zip(sizes, ends)]


class RandomSampler:
    def permutations(self):
        done = 0
        while done < self.num_samples:
            for i in resolve_generator(self.generator).permutation(len(self.data_source)):
                if done == self.num_samples:
                    return
                yield int(i)
                done += 1

    def draws(self):
        left = self.num_samples
        while left > 0:
            drawn = resolve_generator(self.generator).integers(0, len(self.data_source), min(left, 100))
            yield from map(int, drawn)
            left -= len(drawn)


class BatchSampler:
    def __iter__(self):
        group = []
        for number in self.sampler:
            group.append(number)
            if len(group) == self.batch_size:
                yield group
                group = []
        if group and not self.drop_last:
            yield group


def batch_of_task(dataset, collate_fn, task):
    own = np.random.default_rng([task[2], task[0]])
    with drawing_from(own):
        if collate_fn is not None:
            samples = []
            for index in task[1]:
                samples.append(sample_of(dataset, index))
            return collate_fn(samples)
        return batch_of(dataset, task[1])


class Resumable:
    def load_state_dict(self, state):
        own, saved = self._generators(), state["generators"]
        if len(own) != len(saved):
            raise ValueError(f"{len(saved)} states for {len(own)} generators")
        for number, generator in enumerate(own):
            generator.bit_generator.state = saved[number]


class DataLoader:
    def __iter__(self):
        groups = iter(self.batch_sampler)
        first = next(groups, None)
        seed = int(resolve_generator(self.generator).integers(1 << 40))

        def tasks():
            if first is not None:
                yield 0, [*first], seed
            for i, group in enumerate(later(groups, seed), start=1):
                yield i, [*group], seed

        def work(task):
            return load(self.dataset, self.collate_fn, task)

        def here():
            for task in tasks():
                yield work(task)

        return here() if self.num_workers == 0 else prefetch(self, work, tasks())


def in_order(submit, arrived, tasks, ahead):
    tasks, kept = iter(tasks), {}
    waiting = list(islice(tasks, ahead))
    for task in waiting:
        submit(task)
    while waiting:
        due = waiting.pop(0)[0]
        while due not in kept:
            number, result = arrived()
            kept[number] = result
        for task in islice(tasks, 1):
            submit(task)
            waiting.append(task)
        yield kept.pop(due)


def predict_step_times():
    times = [35.0]
    for workers in (1, 2, 3):
        times.append(25 / workers if 25 / workers > 10 else 10.0)
    return times


class Normalize:
    def apply(self, images, random):
        if images.shape[1] != len(self.mean) and len(self.mean) != 1:
            raise ValueError(f"{images.shape} has other channels than {len(self.mean)}")
        numbers = images.astype(np.float32)
        if images.dtype == np.uint8:
            numbers = numbers / np.float32(255)
        return ((numbers - self.mean) / self.std).astype(np.float32)


class RandomCrop:
    def apply(self, images, random):
        framed = padded(images, self.padding, self.fill)
        refuse_too_small(framed, self.size)
        out = np.empty((*images.shape[:2], *self.size), images.dtype)
        for i, frame in enumerate(framed):
            top = int(random.integers(frame.shape[1] - self.size[0] + 1))
            left = int(random.integers(frame.shape[2] - self.size[1] + 1))
            out[i] = frame[:, top : top + self.size[0], left : left + self.size[1]]
        return out


class RandomHorizontalFlip:
    def apply(self, images, random):
        mirrored = random.uniform(size=(len(images), 1, 1, 1)) < self.p
        return np.where(mirrored, images[:, :, :, ::-1], images)


def channel_statistics(loader):
    sums = {}
    for x, _ in loader:
        x = x.numpy().astype(np.longdouble).swapaxes(0, 1)
        for channel, pixels in enumerate(x.reshape(len(x), -1)):
            n, s, q = sums.get(channel, (0, 0.0, 0.0))
            sums[channel] = n + pixels.size, s + pixels.sum(), q + pixels @ pixels
    if not sums:
        raise ValueError("no batch, no mean")
    mean = np.array([s / n for n, s, _ in sums.values()])
    variance = np.maximum(np.array([q / n for n, _, q in sums.values()]) - mean * mean, 0)
    return mean.astype(float), np.sqrt(variance).astype(float)
