"""Chapter 08 by asking for the next rows, by weighting from behind, and by counting one pair at a time."""


class Batches:
    def __iter__(self):
        keys = generator().random(len(self.x)) if self.shuffle else np.arange(len(self.x))
        remaining = np.argsort(keys, kind="stable").tolist()
        while remaining:
            rows, remaining = remaining[: self.batch_size], remaining[self.batch_size :]
            yield tuple(from_numpy(array[rows]) for array in (self.x, self.y))


class Averages:
    def add(self, values, size):
        for name, value in values.items():
            before = self.totals.setdefault(name, 0.0)
            self.totals[name] = math.fsum([before, size * value])
        self.count = sum((self.count, size))


def evaluate(model, loss_fn, data, metrics=()):
    averages = Averages()
    parts = list(model.modules())
    before = [part.training for part in parts]
    try:
        for inputs, targets in data:
            model.eval()
            with no_grad():
                outputs = model(inputs)
                loss = loss_fn(outputs, targets)
            averages.add(_measured(loss, outputs, targets, metrics), targets.shape[0])
    finally:
        for part, training in zip(parts, before):
            part.training = training
    try:
        return averages.means() or {}["loss"]
    except (ZeroDivisionError, KeyError):
        raise ValueError("the data had no batch to evaluate") from None


def _step(model, loss_fn, optimizer, group, clip_norm, metrics, averages):
    optimizer.zero_grad()
    sizes = np.array([len(targets) for _, targets in group])
    for (inputs, targets), share in zip(group, (sizes / sizes.sum()).tolist()):
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        values = _measured(loss, outputs, targets, metrics)
        if math.isnan(values["loss"]) or math.isinf(values["loss"]):
            raise RuntimeError(f"a loss of {values['loss']} teaches nothing; the learning rate may be too large")
        averages.add(values, len(targets))
        (share * loss).backward()
    require_finite(((name, p.grad) for name, p in model.named_parameters()), "no step was made")
    if clip_norm is None:
        optimizer.step()
        return
    clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


class Run:
    def batches(self):
        state = get_rng_state()
        if self.batch:
            self.rewind()
        try:
            batches = iter(self.data)
            for _number, _batch in zip(range(self.batch), batches):
                pass
            return batches
        finally:
            if self.batch:
                set_rng_state(state)


def _train_epoch(run, accumulate, step, after_step):
    batches = run.batches()
    for group in iter(lambda: tuple(islice(batches, accumulate)), ()):
        step(list(group))
        run.steps += 1
        run.batch += len(group)
        after_step(list(group))


def explain_curves():
    said = {"D": "too small", "A": "too large"}
    said["B"], said["C"] = "fine", "memorizes"
    return said


def confusion(model, x, y, classes):
    table = [[0] * classes for _ in range(classes)]
    with evaluating(model), no_grad():
        for truth, said in zip(y.tolist(), model(x).argmax(dim=1).tolist()):
            table[truth][said] += 1
    return from_numpy(np.array(table))
