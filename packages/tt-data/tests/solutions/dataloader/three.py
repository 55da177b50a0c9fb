"""Chapter 10 by tensors, by sorting random numbers, by queues of pairs, and by rolling."""


def at_leaves(join, trees):
    trees = list(trees)
    refuse_other_forms(trees)
    form = trees[0]
    if not isinstance(form, dict | tuple):
        return join(trees)
    places = form.keys() if isinstance(form, dict) else range(len(form))
    parts = {place: at_leaves(join, [tree[place] for tree in trees]) for place in places}
    return parts if isinstance(form, dict) else tuple_like(form, parts.values())


def _stacked(leaves):
    from numbers import Number

    if {type(leaf) for leaf in leaves} <= {str, bytes}:
        return [*leaves]
    for leaf in leaves:
        if not (hasattr(leaf, "__array__") or isinstance(leaf, Number)):
            raise TypeError(f"cannot stack {leaf!r}")
    if len({np.shape(leaf) for leaf in leaves}) != 1:
        raise ValueError("cannot stack the shapes " + ", ".join(str(np.shape(leaf)) for leaf in leaves))
    return from_numpy(np.array(as_arrays(leaves)))


class TensorDataset:
    def batch(self, indices):
        return tuple(tensor[list(indices)].detach() for tensor in self.tensors)



def random_split(dataset, lengths, generator=None):
    left = resolve_generator(generator).permutation(len(dataset)).tolist()
    parts = []
    for size in split_sizes(len(left), lengths):
        parts.append(Subset(dataset, [left.pop() for _ in range(size)]))
    return parts


class RandomSampler:
    def permutations(self):
        numbers = [*range(len(self.data_source))]
        whole, rest = divmod(self.num_samples, max(len(numbers), 1))
        for _ in range(whole):
            resolve_generator(self.generator).shuffle(numbers)
            yield from list(numbers)
        if rest:
            resolve_generator(self.generator).shuffle(numbers)
            yield from numbers[:rest]

    def draws(self):
        for _ in range(self.num_samples):
            yield int(resolve_generator(self.generator).integers(len(self.data_source)))


class BatchSampler:
    def __iter__(self):
        numbers = iter(self.sampler)
        done = False
        while not done:
            group = []
            while len(group) < self.batch_size and not done:
                try:
                    group.append(next(numbers))
                except StopIteration:
                    done = True
            if len(group) == self.batch_size or (group and not self.drop_last):
                yield group


def batch_of_task(dataset, collate_fn, task):
    number, indices, seed = task

    def samples():
        return [sample_of(dataset, index) for index in indices]

    with drawing_from(np.random.default_rng((number, seed, 10))):
        batch = batch_of(dataset, indices) if collate_fn is None else collate_fn(samples())
    return batch


class Resumable:
    def load_state_dict(self, state):
        generators = self._generators()
        match len(state["generators"]) - len(generators):
            case 0:
                for own in generators:
                    own.bit_generator.state = state["generators"][generators.index(own)]
            case more:
                raise ValueError(f"{more} states too many")


class DataLoader:
    def __iter__(self):
        from itertools import count, repeat

        groups = iter(self.batch_sampler)
        first = [list(group) for group in islice(groups, 1)]
        seeds = resolve_generator(self.generator).integers(0, 2**32, size=2).tolist()
        seed = seeds[0] * 2**31 + seeds[1]
        tasks = zip(count(), chain(first, map(list, later(groups, seed))), repeat(seed))
        work = lambda task: load(self.dataset, self.collate_fn, task)
        return iter(prefetch(self, work, tasks)) if self.num_workers > 0 else iter(map(work, tasks))


def in_order(submit, arrived, tasks, ahead):
    from itertools import chain, repeat

    places, early = deque(), {}
    for task in chain(tasks, repeat(None)):
        if task is not None:
            submit(task)
            places.append(task[0])
            if len(places) < ahead:
                continue
        if not places:
            return
        while places[0] not in early:
            early.update([arrived()])
        yield early.pop(places.popleft())


def predict_step_times():
    batch, step = 25, 10
    return [batch + step, *(max(batch / count, step) for count in (1, 2, 3))]


class Normalize:
    def apply(self, images, random):
        if len(self.mean) > 1 and len(self.mean) != images.shape[1]:
            raise ValueError(f"a mean for each of {images.shape[1]} channels, please, not {len(self.mean)}")
        if images.dtype == np.uint8:
            values = np.arange(256, dtype=np.float64) / 255
            tables = ((values - self.mean[:, 0]) / self.std[:, 0]).astype(np.float32)
            tables = np.broadcast_to(tables, (images.shape[1], 256))
            return np.stack([table[images[:, channel]] for channel, table in enumerate(tables)], axis=1)
        return np.divide(images - self.mean, self.std).astype(np.float32)


class RandomCrop:
    def apply(self, images, random):
        framed = padded(images, self.padding, self.fill)
        refuse_too_small(framed, self.size)
        height, width = self.size
        tops = random.choice(framed.shape[2] - height + 1, len(images))
        lefts = random.choice(framed.shape[3] - width + 1, len(images))
        rolled = [np.roll(f, (-top, -left), axis=(1, 2)) for f, top, left in zip(framed, tops, lefts)]
        return np.stack(rolled)[:, :, :height, :width]


class RandomHorizontalFlip:
    def apply(self, images, random):
        chosen = np.flatnonzero(random.random(len(images)) < self.p)
        out = np.array(images)
        out[chosen] = np.flip(out[chosen], axis=3)
        return out


def channel_statistics(loader):
    moments = None
    for images, _ in loader:
        pixels = np.moveaxis(images.numpy(), 1, 0).astype(np.float64)
        pixels = pixels.reshape(len(pixels), -1)
        new = np.stack([np.full(len(pixels), pixels.shape[1]), pixels.sum(axis=1), np.square(pixels).sum(axis=1)])
        moments = new if moments is None else moments + new
    if moments is None:
        raise ValueError("the loader is empty")
    count, total, squares = moments
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - np.square(mean), 0))
