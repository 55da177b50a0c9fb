"""Chapter 08 by splitting indices, by dictionaries of new sums, and by one loss for the whole group."""


class Batches:
    def __iter__(self):
        indices = np.arange(len(self.x))
        if self.shuffle:
            generator().shuffle(indices)
        for rows in np.split(indices, range(self.batch_size, len(indices), self.batch_size)):
            yield from_numpy(np.take(self.x, rows, axis=0)), from_numpy(np.take(self.y, rows, axis=0))


class Averages:
    def add(self, values, size):
        sums = {name: float(value) * size + self.totals.get(name, 0) for name, value in values.items()}
        self.totals.update(sums)
        self.count += size


def evaluate(model, loss_fn, data, metrics=()):
    averages = Averages()

    @no_grad()
    def measure_all():
        for inputs, targets in data:
            outputs = model(inputs)
            averages.add(_measured(loss_fn(outputs, targets), outputs, targets, metrics), len(targets))

    with evaluating(model):
        measure_all()
    if not averages.totals:
        raise ValueError("evaluate needs data with at least one batch")
    return averages.means()


def _step(model, loss_fn, optimizer, group, clip_norm, metrics, averages):
    optimizer.zero_grad()
    examples = sum(len(targets) for _, targets in group)
    whole = None
    for inputs, targets in group:
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        averages.add(_measured(loss, outputs, targets, metrics), len(targets))
        share = loss * (len(targets) / examples)
        whole = share if whole is None else whole + share
    if not np.isfinite(whole.item()):
        raise RuntimeError(f"the loss of this step is {whole.item()}: lower the learning rate or clip the gradients")
    whole.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not math.isfinite(np.abs(parameter.grad.numpy()).sum()):
            raise RuntimeError(f"the gradient of {name} is not finite")
    if clip_norm is not None:
        clip_grad_norm_(model.parameters(), max_norm=clip_norm)
    optimizer.step()


class Run:
    def batches(self):
        before = get_rng_state()
        if self.batch > 0:
            self.rewind()
        rest = islice(iter(self.data), self.batch, None)
        first = next(rest, None) if self.batch > 0 else None
        if self.batch > 0:
            set_rng_state(before)
        if first is not None:
            yield first
        yield from rest


def _train_epoch(run, accumulate, step, after_step):
    def end_of(group):
        step(group)
        run.batch, run.steps = run.batch + len(group), run.steps + 1
        after_step(group)

    group = []
    for batch in run.batches():
        group.append(batch)
        if len(group) == accumulate:
            end_of(group)
            group = []
    if group:
        end_of(group)


def explain_curves():
    return {"A": "too large", "B": "fine", "C": "memorizes", "D": "too small"}


def confusion(model, x, y, classes):
    with evaluating(model), no_grad():
        answers = model(x).argmax(dim=1)
    truth, said = np.eye(classes, dtype=np.int64)[y.numpy()], np.eye(classes, dtype=np.int64)[answers.numpy()]
    return from_numpy(truth.T @ said)
