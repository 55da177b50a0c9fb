"""Data parallel: what one rank computes, any number of ranks computes; and a rank that dies ends all.

This file is also the program that mpiexec starts: `mpiexec -n 2 python test_parallel.py curves result.json`."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tt_tensor as tt
from tt_autograd import Batches, BestCheckpoint, Callback, EarlyStopping, accuracy, fit, load_checkpoint, no_grad
from tt_data import BatchSampler, DataLoader, Dataset, SequentialSampler
from tt_data.common import resolve_generator
from tt_opt import parallel
from tt_opt.parallel import DistributedDataParallel, DistributedSampler, RowsOfBatch, Share, data_parallel, share_of
from tt_optim import SGD, Adam

KILLS = int(os.environ.get("TT_KILLS", 3))
SECONDS = 60  # that a run under mpiexec may take


def world():
    """All ranks."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


class Curve(Callback):
    """The mean loss so far, after each step."""

    def __init__(self):
        self.losses = []

    def on_step(self, run):
        self.losses.append(run.averages.means()["loss"])


# ---- what the ranks run ---------------------------------------------------------------------------------------------


def classifier(dropout=0.0):
    return tt.Sequential(tt.Linear(6, 16), tt.Tanh(), tt.Dropout(dropout), tt.Linear(16, 4)).double()


def examples(count):
    random = np.random.default_rng(7)
    return tt.from_numpy(random.normal(size=(count, 6))), tt.from_numpy(random.integers(0, 4, count))


def result_of(model, curve, **more):
    """What a training has come to: its curve, its weights, and on how many ranks the weights have other bits."""
    weights = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    everyone = world().allgather(weights.tobytes())
    return {"curve": list(curve), "weights": weights.tolist(), "different": len(set(everyone)) - 1, **more}


def even():
    tt.manual_seed(parallel.rank())  # rank 0's model and its chance must win
    model, curve = classifier(), Curve()
    data = Batches(*examples(80), 16, shuffle=True)
    data_parallel(fit)(model, tt.cross_entropy, Adam(model.parameters(), lr=0.01), data, epochs=10, callbacks=[curve])
    return result_of(model, curve.losses)


def uneven():
    """Batches of 17, 17, 17, 17, 2, three to a step; dropout; clipping; validation in batches of 20, 20, 3."""
    tt.manual_seed(1)
    model, curve = classifier(dropout=0.3), Curve()
    data, held_out = Batches(*examples(70), 17, shuffle=True), Batches(*examples(43), 20)
    history = data_parallel(fit)(
        model, tt.cross_entropy, Adam(model.parameters(), lr=0.01), data, epochs=25, callbacks=[curve], accumulate=3,
        clip_norm=0.5, validation=held_out, metrics=[accuracy],
    )
    named = {name: numbers for name, numbers in history.items() if name not in ("seconds", "lr")}
    return result_of(model, curve.losses, history=named)


class Noisy(Dataset):
    """Samples to which loading adds noise, from the batch's own generator."""

    def __init__(self, count):
        self.x, self.y = examples(count)
        self.loaded = 0

    def __len__(self):
        return len(self.x)

    def batch(self, indices):
        rows = np.asarray(indices)
        self.loaded += len(rows)
        noise = resolve_generator().normal(0, 0.1, (len(rows), 6)) + resolve_generator().random(len(rows))[:, None]
        return tt.from_numpy(self.x.numpy()[rows] + noise), tt.from_numpy(self.y.numpy()[rows])


def loader():
    tt.manual_seed(2)
    model, curve, data = classifier(), Curve(), Noisy(50)
    batches = DataLoader(data, 16, shuffle=True, num_workers=1, generator=np.random.default_rng(5))
    data_parallel(fit)(model, tt.cross_entropy, Adam(model.parameters()), batches, epochs=5, callbacks=[curve])
    return result_of(model, curve.losses, loaded=sum(world().allgather(data.loaded)))


class Forked(tt.Module):
    """A layer that is used twice, one that only rows with x[0] > 1 use, and one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.twice, self.rare, self.never, self.out = (tt.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        h = tt.tanh(self.twice(tt.tanh(self.twice(x))))
        (rows,) = np.nonzero(x.numpy()[:, 0] > 1)
        out = self.out(h)
        return out + tt.place(self.rare(h[rows]), index=rows, shape=out.shape) if len(rows) else out


class Watching(DistributedDataParallel):
    def _average(self):
        self.started = self._next / len(self.buckets)
        super()._average()


def forked():
    tt.manual_seed(3)
    model = Forked().double()
    before = model.never.weight.numpy().copy()
    wrapped = Watching(model, bucket_cap_mb=0.0002)
    data, losses = Share(Batches(*examples(30), 7)), []
    optimizer = Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(4):
        for x, y in data:
            optimizer.zero_grad()
            parallel.weighted(tt.cross_entropy(wrapped(x), y), y).backward()
            optimizer.step()
    kept = np.array_equal(before, model.never.weight.numpy()) and model.never.weight.grad is None
    return result_of(model, losses, kept=kept, started=getattr(wrapped, "started", None))


def accumulated():
    """Four quarters of a batch, three of them under no_sync(); one parameter takes no part in the last."""
    tt.manual_seed(4)
    model = Forked().double()
    wrapped, optimizer = DistributedDataParallel(model), SGD(model.parameters(), lr=0.5)
    x, y = examples(32)
    x = tt.from_numpy(np.where(np.arange(32)[:, None] < 24, x.numpy(), np.minimum(x.numpy(), 1)))
    for _ in range(3):
        optimizer.zero_grad()
        quarters = list(Share([(x[i : i + 8], y[i : i + 8]) for i in range(0, 32, 8)]))
        with wrapped.no_sync():
            for inputs, targets in quarters[:3]:
                (tt.cross_entropy(wrapped(inputs), targets) / 4).backward()
        inputs, targets = quarters[3]
        (tt.cross_entropy(wrapped(inputs), targets) / 4).backward()
        optimizer.step()
    return result_of(model, [])


def early():
    """How many of the buckets have been started when the walk is over; with one forward pass, and with two."""
    layers = [layer for _ in range(6) for layer in (tt.Linear(6, 6), tt.Tanh())]
    wrapped = Watching(tt.Sequential(*layers).double(), bucket_cap_mb=0.0003)
    (x, _), started, gradients = examples(8), [], []
    for passes in (1, 2):
        wrapped.zero_grad()
        losses = [wrapped(x).sum() / passes for _ in range(passes)]
        (losses[0] if passes == 1 else losses[0] + losses[1]).backward()
        started.append(getattr(wrapped, "started", None))
        gradients.append([p.grad.numpy().sum().item() for p in wrapped.parameters()])
    return {"started": started, "gradients": gradients}


def norms():
    """The buffers of a batch normalization, which sees other rows on each rank, agree when the model is evaluated."""
    from tt_spatial import BatchNorm1d

    wrapped, (x, _) = DistributedDataParallel(tt.Sequential(BatchNorm1d(6)).double()), examples(16)
    for inputs, targets in Share([(x, x)]):
        ((wrapped(inputs) - targets) ** 2).mean().backward()
    wrapped.eval()
    with no_grad():
        wrapped(x)
    buffers = b"".join(b.numpy().tobytes() for b in wrapped.buffers())
    return {"different": len(set(world().allgather(buffers))) - 1}


def refused():
    """Messages about what cannot be averaged; every rank gets them."""
    (x, _), messages = examples(8), []
    model = classifier()
    wrapped = DistributedDataParallel(model)
    penalty = (model[0].weight * model[0].weight).sum()
    for attempt in (
        lambda: (wrapped(x).sum() + penalty).backward(),
        lambda: DistributedDataParallel(classifier())(x).sum().backward(create_graph=True),
        lambda: DistributedDataParallel(model, bucket_cap_mb=0),
        lambda: DistributedDataParallel(len),
        lambda: Share(iter([])),
    ):
        try:
            attempt()
            messages.append("")
        except (RuntimeError, ValueError, TypeError) as error:
            messages.append(f"{type(error).__name__}: {error}")
    return messages


def curves(path):
    cases = (even, uneven, loader, forked, accumulated, early, norms, refused)
    results = {case.__name__: case() for case in cases}
    if parallel.rank() == 0:
        Path(path).write_text(json.dumps(results))


# A training that can be cut off and resumed: with dropout, batches of uneven size, and callbacks that remember.


class Cut(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.steps == self.step and parallel.rank() == parallel.world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(SECONDS)


def training(folder, cut, epochs="6"):
    tt.manual_seed(5)
    folder, model, curve = Path(folder), classifier(dropout=0.2), Curve()
    (folder / f"pid{parallel.rank()}").write_text(str(os.getpid()))
    callbacks = [curve, Cut(int(cut)), EarlyStopping(patience=100), BestCheckpoint(folder / f"best{parallel.rank()}")]
    data_parallel(fit)(
        model, tt.cross_entropy, Adam(model.parameters(), lr=0.01), Batches(*examples(47), 10, shuffle=True),
        epochs=int(epochs), callbacks=callbacks, checkpoint=folder / "run", checkpoint_every=1, resume=True,
        validation=Batches(*examples(20), 10),
    )
    result = result_of(model, curve.losses)
    if parallel.rank() == 0:
        (folder / "result.json").write_text(json.dumps(result))


def failing(how):
    if how == "early":
        if parallel.rank() == 1:
            raise KeyError("before the training")
        parallel.barrier()
    model = tt.Sequential(tt.Linear(6, 4 + (how == "models") * parallel.rank())).double()

    class Bad(Callback):
        def on_step(self, run):
            if how == "all" or (how == "one" and parallel.rank() == 2):
                raise LookupError(f"bad luck on rank {parallel.rank()}")
            if how == "exit" and parallel.rank() == 1:
                sys.exit("out of disk")

    data = Batches(*examples(40 + 10 * (how == "data") * parallel.rank()), 10)
    data_parallel(fit)(model, tt.cross_entropy, Adam(model.parameters()), data, epochs=1, callbacks=[Bad()])


# ---- starting them --------------------------------------------------------------------------------------------------


def _mpiexec():
    beside = Path(sys.executable).parent / ("mpiexec.exe" if os.name == "nt" else "mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or _mpiexec() is None,
    reason="needs mpi4py and mpiexec: pip install 'tt-opt[mpi]'",
)


def start(ranks, *arguments):
    """mpiexec with this file as the program."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return subprocess.Popen(
        [_mpiexec(), "-n", str(ranks), sys.executable, __file__, *map(str, arguments)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(process, seconds=SECONDS):
    """(code, everything that was printed); a program that hangs is a failure."""
    try:
        out, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        out, error = process.communicate(timeout=10)
        pytest.fail(f"the ranks hang after {seconds} seconds:\n{out}{error}")
    return process.returncode, out + error


def run(ranks, *arguments):
    code, printed = finish(start(ranks, *arguments))
    assert code == 0, printed
    return printed


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    for ranks in (1, 2, 4):
        run(ranks, "curves", folder / f"{ranks}.json")
    return {ranks: json.loads((folder / f"{ranks}.json").read_text()) for ranks in (1, 2, 4)}


@needs_mpi
@pytest.mark.parametrize("case", ["even", "uneven", "loader", "forked", "accumulated"])
def test_1_2_and_4_ranks_compute_the_same(results, case):
    alone = results[1][case]
    assert case in ("forked", "accumulated") or len(alone["curve"]) >= 20
    for ranks in (2, 4):
        together = results[ranks][case]
        np.testing.assert_allclose(together["curve"], alone["curve"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(together["weights"], alone["weights"], rtol=0, atol=1e-9)
        assert together["different"] == 0


@needs_mpi
def test_fifty_steps_are_those_of_plain_fit(results):
    tt.manual_seed(0)
    model, curve = classifier(), Curve()
    data = Batches(*examples(80), 16, shuffle=True)
    fit(model, tt.cross_entropy, Adam(model.parameters(), lr=0.01), data, epochs=10, callbacks=[curve], progress=False)
    assert len(curve.losses) == 50
    for ranks in (1, 2, 4):
        np.testing.assert_allclose(results[ranks]["even"]["curve"], curve.losses, rtol=0, atol=1e-9)


@needs_mpi
def test_the_history_is_that_of_whole_batches(results):
    alone = results[1]["uneven"]["history"]
    assert set(alone) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for ranks in (2, 4):
        for name, numbers in alone.items():
            np.testing.assert_allclose(results[ranks]["uneven"]["history"][name], numbers, rtol=0, atol=1e-9)


@needs_mpi
def test_each_sample_is_loaded_by_one_rank(results):
    assert [results[ranks]["loader"]["loaded"] for ranks in (1, 2)] == [250, 250]
    assert results[4]["loader"]["loaded"] == 250 + 5 * 2  # the last batch has 2 rows, so two ranks borrow one


@needs_mpi
def test_a_parameter_that_no_rank_uses_has_no_gradient(results):
    assert all(results[ranks]["forked"]["kept"] for ranks in (1, 2, 4))


@needs_mpi
def test_buckets_leave_while_backward_goes_on(results):
    assert results[1]["early"]["started"] == [None, None]
    for ranks in (2, 4):
        assert results[ranks]["forked"]["started"] == 1  # nothing waits for a parameter that is not used
        assert results[ranks]["early"]["started"] == [1, 0]  # after two forward passes no gradient is known to be whole
        np.testing.assert_allclose(*results[ranks]["early"]["gradients"])
        np.testing.assert_allclose(results[ranks]["early"]["gradients"], results[1]["early"]["gradients"])


@needs_mpi
def test_buffers_agree_in_evaluation(results):
    assert results[4]["norms"]["different"] == 0


@needs_mpi
def test_what_cannot_be_averaged_is_refused(results):
    for ranks in (2, 4):
        outside, graph, cap, module, endless = results[ranks]["refused"]
        assert outside.startswith("RuntimeError") and "outside the model's forward pass" in outside
        assert "create_graph=True" in graph and "not 0" in cap and "not a builtin_function_or_method" in module
        assert "list_iterator has none" in endless


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def resumed(folder, copy, ranks):
    shutil.copytree(folder, copy)
    run(ranks, "training", copy, 0)
    return json.loads((copy / "result.json").read_text())


@needs_mpi
def test_a_checkpoint_of_two_ranks_resumes_on_one_and_four(tmp_path):
    (tmp_path / "whole").mkdir()
    run(1, "training", tmp_path / "whole", 0)
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())
    (tmp_path / "cut").mkdir()
    code, _ = finish(start(2, "training", tmp_path / "cut", 13), seconds=20)
    assert code != 0 and load_checkpoint(tmp_path / "cut" / "run")["steps"] in (12, 13)
    (tmp_path / "cut" / ".run.unfinished").write_bytes(b"half")  # as if it had been killed while writing
    for ranks in (1, 4):
        result = resumed(tmp_path / "cut", tmp_path / f"on{ranks}", ranks)
        np.testing.assert_allclose(result["weights"], whole["weights"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(result["curve"], whole["curve"][-len(result["curve"]) :], rtol=0, atol=1e-9)
        assert result["different"] == 0 and len(result["curve"]) in (17, 18)
        assert sorted(p.name for p in (tmp_path / f"on{ranks}").iterdir() if "pid" not in p.name) == [
            "best0", "result.json", "run",
        ]


def continued(folder):
    """The training of `even`, from a checkpoint of plain fit."""
    model, curve = classifier(), Curve()
    data_parallel(fit)(
        model, tt.cross_entropy, Adam(model.parameters(), lr=0.01), Batches(*examples(80), 16, shuffle=True), epochs=10,
        callbacks=[curve], checkpoint=Path(folder) / "run", resume=True,
    )
    if parallel.rank() == 0:
        (Path(folder) / "result.json").write_text(json.dumps({"curve": curve.losses}))


@needs_mpi
def test_a_checkpoint_of_plain_fit_continues_on_two_ranks(tmp_path, results):
    tt.manual_seed(0)
    model = classifier()
    fit(
        model, tt.cross_entropy, Adam(model.parameters(), lr=0.01), Batches(*examples(80), 16, shuffle=True), epochs=4,
        callbacks=[Curve()], checkpoint=tmp_path / "run", progress=False,
    )
    run(2, "continued", tmp_path)
    curve = json.loads((tmp_path / "result.json").read_text())["curve"]
    np.testing.assert_allclose(curve, results[1]["even"]["curve"][20:], rtol=0, atol=1e-9)


# ---- a rank that dies -----------------------------------------------------------------------------------------------


@needs_mpi
@pytest.mark.parametrize(
    "how, line",
    [
        ("one", "rank 2 of 4 failed, and the other ranks end with it: LookupError: bad luck on rank 2"),
        ("all", "rank 0 of 4 failed, and the other ranks end with it: LookupError: bad luck on rank 0"),
        ("exit", "rank 1 of 4 failed, and the other ranks end with it: SystemExit: out of disk"),
        ("models", "ValueError: rank 0 and rank 1 have different models"),
        ("data", "ValueError: the ranks have [4, 5, 6, 7] batches"),
        ("early", "rank 1 of 4 failed, and the other ranks end with it: KeyError: 'before the training'"),
    ],
)
def test_an_error_on_one_rank_ends_all_with_one_message(how, line):
    code, printed = finish(start(4, "failing", how), seconds=20)
    assert code != 0 and line in printed, printed
    assert printed.count("failed, and the other ranks end with it") == 1 and printed.count("Traceback") == 1, printed


@needs_mpi
@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
def test_a_killed_rank_ends_all_and_leaves_whole_files(tmp_path):
    random = np.random.default_rng()
    for number in range(KILLS):
        ranks, folder = (2, 4)[number % 2], tmp_path / str(number)
        folder.mkdir()
        process = start(ranks, "training", folder, 0, 100_000)
        _wait_for(folder / "run")
        time.sleep(random.uniform(0, 0.5))
        pids = [int((folder / f"pid{rank}").read_text()) for rank in range(ranks)]
        os.kill(pids[random.integers(ranks)], signal.SIGKILL)
        code, printed = finish(process, seconds=10)
        assert code != 0 and "signal 9" in printed, printed
        assert not any(map(_alive, pids))
        assert load_checkpoint(folder / "run")["steps"] >= 1
        if (folder / "best0").exists():
            load_checkpoint(folder / "best0")
        assert {p.name for p in folder.iterdir() if "pid" not in p.name} <= {
            "run", "best0", ".run.unfinished", ".best0.unfinished",
        }


def _wait_for(path):
    until = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} was never written"
        time.sleep(0.02)


def _alive(pid):
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    return True


# ---- without MPI ----------------------------------------------------------------------------------------------------


def test_the_checks_of_the_page():
    for name in [name for name in dir(parallel) if name.startswith("check_")]:
        getattr(parallel, name)()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_shares_cover_each_batch_once(ranks):
    for total in range(1, 30):
        shares = [share_of(total, rank, ranks) for rank in range(ranks)]
        counted = [row for s in shares if not s.borrowed for row in range(s.start, s.stop)]
        sizes = [s.count for s in shares]
        assert counted == list(range(total)) and max(sizes) - min(sizes) <= 1
        assert all(s.stop - s.start >= 1 for s in shares)


@pytest.mark.parametrize("total, rank, ranks", [(0, 0, 1), (5, 2, 2), (5, -1, 2)])
def test_impossible_shares_are_refused(total, rank, ranks):
    with pytest.raises(ValueError, match=f"{total} rows, rank {rank} and world_size {ranks}"):
        share_of(total, rank, ranks)


def test_the_sampler_splits_each_group():
    groups = BatchSampler(SequentialSampler(range(13)), 5)
    parts = [list(DistributedSampler(groups, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert parts == [[[0, 1], [5, 6], [10]], [[2, 3, 4], [7, 8, 9], [11, 12]]]
    assert len(DistributedSampler(groups, num_replicas=2, rank=0)) == 3
    assert list(DistributedSampler([[8]], num_replicas=2, rank=0)) == [[8]]
    with pytest.raises(ValueError, match="rank 2 and world_size 2"):
        DistributedSampler(groups, num_replicas=2, rank=2)


@pytest.mark.parametrize("make", [Batches, lambda x, y, size: DataLoader(list(zip(x, y)), size)])
def test_the_shares_of_all_ranks_are_the_batch(make):
    x, y = examples(23)
    shares = [list(Share(make(x, y, 5), rank=rank, world_size=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [5] * 3
    for i, (inputs, targets) in enumerate(Batches(x, y, 5)):
        joined = np.concatenate([share[i][0].numpy() for share in shares])
        assert np.array_equal(joined, inputs.numpy())
        assert np.array_equal(np.concatenate([share[i][1].numpy() for share in shares]), targets.numpy())


def test_evaluation_skips_a_borrowed_row_and_refuses_nothing_at_all():
    x, y = examples(9)
    share = Share(Batches(x, y, 4), training=False, rank=0, world_size=2)
    assert [len(targets) for _, targets in share] == [2, 2] and share.seen == 4
    with pytest.raises(ValueError, match="rank 0 of 2 has no example to evaluate"):
        list(Share(Batches(x, y, 1), training=False, rank=0, world_size=2))


def test_a_share_weighs_the_gradient_and_not_the_value():
    x, y = examples(5)
    gradients = []
    for rank in range(2):
        share = Share([(x, y)], rank=rank, world_size=2)
        ((inputs, targets),) = share
        w = tt.Parameter(np.ones((6, 4)))
        loss = tt.cross_entropy(inputs @ w, targets)
        parallel.weighted(loss, targets).backward()
        assert parallel.weighted(loss, targets).item() == pytest.approx(loss.item(), rel=1e-12)
        gradients.append(w.grad.numpy())
        share.forget()
    w = tt.Parameter(np.ones((6, 4)))
    tt.cross_entropy(x @ w, y).backward()
    np.testing.assert_allclose(sum(gradients) / 2, w.grad.numpy(), rtol=1e-12)
    assert parallel.weighted(loss, y) is loss


@pytest.mark.parametrize(
    "draw",
    [
        lambda g, n: g.random((n, 3), dtype=np.float32), lambda g, n: g.random(n), lambda g, n: g.normal(1, 2, (n, 2)),
        lambda g, n: g.integers(0, 9, size=(n, 2)), lambda g, n: g.integers(9, size=n), lambda g, n: g.uniform(size=n),
        lambda g, n: g.standard_normal((2 * n, 3), np.float32), lambda g, n: g.integers(0, 9, n, np.int32),
    ],
)
def test_ranks_draw_the_rows_of_one_drawing(draw):
    whole = draw(np.random.default_rng(0), 7)
    places = [share_of(7, rank, 3) for rank in range(3)]
    parts = [draw(RowsOfBatch(np.random.PCG64(0), p), p.stop - p.start) for p in places]
    assert np.array_equal(np.concatenate(parts), whole) and all(part.dtype == whole.dtype for part in parts)


def test_numbers_that_are_no_rows_are_drawn_as_usual():
    rows = RowsOfBatch(np.random.PCG64(0), share_of(7, 2, 3))
    usual = np.random.default_rng(0)
    assert rows.random() == usual.random() and np.array_equal(rows.random((4, 3)), usual.random((4, 3)))


def test_the_model_of_a_step():
    assert parallel.predicted_seconds(2.0, 2, 0, 0, 1) == 1.0
    assert parallel.predicted_seconds(0, 8, 8e9, 1e-6, 1e9) == pytest.approx(6e-6 + 14)
    with pytest.raises(ValueError, match="they are 0 and 1"):
        parallel.predicted_seconds(1, 0, 0, 0, 1)


def _python(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS
    )
    return run.stdout + run.stderr


def test_without_mpi4py_the_module_can_be_imported_and_says_what_is_missing():
    hidden = "import sys; sys.modules['mpi4py'] = None"
    printed = _python(f"{hidden}; from tt_opt import parallel; print(1); parallel.rank()")
    assert printed.startswith("1\n") and "ModuleNotFoundError: data-parallel training needs MPI" in printed
    assert "pip install 'tt-opt[mpi]'" in printed


@needs_mpi
def test_the_mpiexec_of_another_mpi_is_noticed():
    printed = _python("from tt_opt import parallel; parallel.rank()", OMPI_COMM_WORLD_SIZE="4")
    assert "RuntimeError: mpiexec started 4 processes, but mpi4py belongs to another MPI" in printed


@needs_mpi
def test_the_tables_of_the_page():
    printed = run(2, "tables")
    assert "2 ranks: latency" in printed and printed.count("measured us") == 1 and printed.count("predicted") == 1
    alone = run(1, "tables")
    assert "one rank sends nothing" in alone
    assert printed.splitlines()[:3] == alone.splitlines()[:3] and "held-out loss" in alone


def tables():
    vars(parallel)["show_training"]()
    vars(parallel)["show_allreduce"]()
    vars(parallel)["show_scaling"](width=16)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
