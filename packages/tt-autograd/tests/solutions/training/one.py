"""Chapter 08 by slices of shuffled copies, by sums kept apart, and by scaled gradients."""


class Batches:
    def __iter__(self):
        x, y = self.x, self.y
        if self.shuffle:
            order = generator().permutation(len(x))
            x, y = x[order], y[order]
        first = 0
        while first < len(x):
            last = min(first + self.batch_size, len(x))
            yield from_numpy(x[first:last].copy()), from_numpy(y[first:last].copy())
            first = last


class Averages:
    def add(self, values, size):
        self.count = self.count + size
        for name in values:
            if name not in self.totals:
                self.totals[name] = 0.0
            self.totals[name] += size * float(values[name])


def evaluate(model, loss_fn, data, metrics=()):
    modes = {module: module.training for module in model.modules()}
    averages = Averages()
    with no_grad():
        try:
            model.train(False)
            for x, y in data:
                out = model(x)
                numbers = {"loss": float(loss_fn(out, y))} | {m.__name__: float(m(out, y)) for m in metrics}
                averages.add(numbers, len(y))
        finally:
            for module, training in modes.items():
                module.training = training
    if averages.count == 0:
        raise ValueError("no batch came out of the data, so there is no mean")
    return averages.means()


def _step(model, loss_fn, optimizer, group, clip_norm, metrics, averages):
    optimizer.zero_grad()
    total = sum(len(targets) for _, targets in group)
    for inputs, targets in group:
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        numbers = _measured(loss, outputs, targets, metrics)
        if numbers["loss"] != numbers["loss"] or abs(numbers["loss"]) == math.inf:
            raise RuntimeError(f"the loss is {numbers['loss']}: try a lower learning rate")
        averages.add(numbers, len(targets))
        loss.backward(from_numpy(np.asarray(len(targets) / total, loss.dtype)))
    _check_gradients(model)
    if clip_norm:
        clip_grad_norm_(list(model.parameters()), clip_norm)
    optimizer.step()


class Run:
    def batches(self):
        first, now = self.batch, get_rng_state()
        if first == 0:
            return iter(self.data)
        self.rewind()
        left = iter(self.data)
        seen = [next(left, None) for _ in range(first)]
        del seen
        set_rng_state(now)
        return left


def _train_epoch(run, accumulate, step, after_step):
    left = run.batches()
    group = list(islice(left, accumulate))
    while group:
        step(group)
        run.batch += len(group)
        run.steps += 1
        after_step(group)
        group = list(islice(left, accumulate))


def explain_curves():
    words = ["too large", "fine", "memorizes", "too small"]
    return dict(zip("ABCD", words))


def confusion(model, x, y, classes):
    with evaluating(model), no_grad():
        answers = model(x).numpy().argmax(axis=1)
    return from_numpy(np.bincount(y.numpy() * classes + answers, minlength=classes**2).reshape(classes, classes))
