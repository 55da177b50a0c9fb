"""Chapter 12, judged by its public names."""

import numpy as np
import pytest

import tt_autograd as ta
import tt_nlp as tn
import tt_tensor as tt
from tt_tensor.teaching import between, expect

ONE_HOT, LOOKING, LAYER = "The smallest thing that could work", "Looking up", "The layer"
LEARNED, PLACES, TURNING, EXERCISES = "What is learned", "Where it stands", "Turning", "Exercises"


@pytest.fixture(autouse=True)
def same_chance():
    tt.manual_seed(0)


def numbers(*shape):
    """Numbers that follow no pattern, the same in every run."""
    return np.random.default_rng(12).normal(size=shape)


IDS = np.array([[3, 0, 3], [2, 3, 4]])


def test_looking_up():
    table = numbers(5, 3)
    for name, see in (("by_one_hot", ONE_HOT), ("embedding", LOOKING)):
        expect(
            f"{name}(ids [[3, 0, 3], [2, 3, 4]], weight (5, 3))",
            lambda name=name: getattr(tn.embeddings, name)(tt.tensor(IDS), tt.Tensor(table)),
            table[IDS],
            (lambda out: out.shape != (2, 3, 3), "Each id becomes a vector: the result has the shape (*ids.shape, C)."),
            "An id's vector is the row of the table with that number.",
            see=see,
        )
    expect(
        "the dtype of embedding(ids, weight) for a float32 weight",
        lambda: tn.embedding(tt.tensor(IDS), tt.randn(5, 3)).dtype,
        np.dtype("float32"),
        see=LOOKING,
    )


def test_wrong_ids():
    table = tt.randn(5, 3)
    for ids in ([0, 5], [-1], [[2, 7]]):
        expect(
            f"embedding(ids {ids}, weight (5, 3))",
            lambda ids=ids: tn.embedding(tt.tensor(ids), table).shape,
            IndexError,
            "NumPy counts negative ids from the end, and its own message does not say which id it was.",
            see=LOOKING,
        )
    expect(
        "embedding(ids [1.0, 2.0], weight (5, 3))",
        lambda: tn.embedding(tt.Tensor([1.0, 2.0]), table).shape,
        TypeError,
        "Ids are integers.",
        see=LOOKING,
    )


def added(ids, g, rows):
    table = np.zeros((rows, g.shape[-1]))
    for place in np.ndindex(*ids.shape):
        table[ids[place]] += g[place]
    return table


def last_wins(ids, g, rows):
    table = np.zeros((rows, g.shape[-1]))
    for place in np.ndindex(*ids.shape):
        table[ids[place]] = g[place]
    return table


ADD = "The last place overwrote the others: for repeated ids the gradients add up, since all of the places count."


def test_putting_back():
    for ids, said in (
        (np.array([3, 3]), "[3, 3]"), (IDS, "[[3, 0, 3], [2, 3, 4]]"), (np.array([4, 1, 0]), "[4, 1, 0]"),
        (np.array([1, 4, 1]), "[1, 4, 1]"), (np.zeros(0, int), "[]"),
    ):  # fmt: skip
        g = numbers(*ids.shape, 2)
        expect(
            f"add_rows(ids {said}, g {g.shape}, rows=5)",
            lambda ids=ids, g=g: tn.add_rows(ids, g, rows=5),
            added(ids, g, 5),
            *([(last_wins(ids, g, 5), ADD)] if len(set(ids.ravel().tolist())) < ids.size else []),
            (lambda out: out.shape != (5, 2), "The table has `rows` rows, also for ids that do not occur."),
            "Row i of the table is the sum of all g whose id is i.",
            see=LOOKING,
        )
    expect(
        "the dtype of add_rows(ids, g, rows=5) for g of float32",
        lambda: tn.add_rows(IDS, numbers(2, 3, 2).astype(np.float32), rows=5).dtype,
        np.dtype("float32"),
        "The table has the dtype of g: np.zeros makes float64 if it is not told.",
        see=LOOKING,
    )
    many = np.random.default_rng(0).integers(0, 9, 200)
    expect(
        "add_rows of 200 ids below 9",
        lambda: tn.add_rows(many, numbers(200, 4), rows=9),
        added(many, numbers(200, 4), 9),
        (last_wins(many, numbers(200, 4), 9), ADD),
        see=LOOKING,
    )


def test_gradient_of_the_table():
    def gradient(padding_idx):
        weight = tt.Tensor(numbers(5, 2), requires_grad=True)
        out = tn.embedding(tt.tensor(IDS), weight, padding_idx=padding_idx)
        (out * tt.Tensor(numbers(2, 3, 2))).sum().backward()
        return weight.grad

    right = added(IDS, numbers(2, 3, 2), 5)
    without = right.copy()
    without[3] = 0
    expect(
        "the gradient of sum(g * embedding(ids [[3, 0, 3], [2, 3, 4]], weight)) by weight",
        lambda: gradient(None),
        right,
        (last_wins(IDS, numbers(2, 3, 2), 5), ADD),
        (without, "Without a padding_idx every row is trained."),
        "The rule of embedding puts each g back into the row that it came from.",
        see=LOOKING,
    )
    expect(
        "the same with padding_idx=3",
        lambda: gradient(3),
        without,
        (right, "The row of padding_idx gets no gradient."),
        see=LOOKING,
    )

    def of_infinity():
        weight = tt.Tensor(numbers(5, 2), requires_grad=True)
        g = numbers(2, 3, 2)
        g[0, 0], g[1, 1] = np.inf, np.nan
        tn.embedding(tt.tensor(IDS), weight, padding_idx=3).backward(tt.Tensor(g))
        return weight.grad

    expect(
        "the same with padding_idx=3 and gradients of infinity and nan at two places of the padding",
        of_infinity,
        without,
        (lambda out: bool(np.isnan(out[3]).any()),
         "0 times infinity is nan: take a zero in the place of g with `tt.choose`, do not multiply."),
        see=LOOKING,
    )  # fmt: skip


def test_second_derivatives():
    def curvature():
        weight = tt.Tensor(numbers(5, 2), requires_grad=True)
        (first,) = ta.grad((tn.embedding(tt.tensor(IDS), weight) ** 3).sum(), weight, create_graph=True)
        return ta.grad((first * tt.Tensor(numbers(5, 2))).sum(), weight)[0]

    count = np.bincount(IDS.ravel(), minlength=5)[:, None]
    expect(
        "the second derivative of sum(embedding(ids, weight) ** 3), times a table",
        curvature,
        6 * numbers(5, 2) * numbers(5, 2) * count,
        "add_rows and embedding are each other's rules.",
        see=LOOKING,
    )


def measured_costs():
    """What by_one_hot and embedding cost for ids (8, 16) and a table (1000, 32) of float32."""
    ids, weight = tt.randint(0, 1000, (8, 16)), tt.randn(1000, 32, requires_grad=True)
    with tt.meter() as meter:
        tn.embeddings.by_one_hot(ids, weight)
    out = tn.embedding(ids, weight)
    out.sum().backward()
    return {
        "multiply_adds": meter.multiply_adds["matmul"], "bytes_out": out.nbytes, "bytes_grad": weight.grad.nbytes
    }  # fmt: skip


def test_costs_are_predicted():
    expect(
        "predict_costs(), for ids (8, 16) and a table (1000, 32) of float32",
        lambda: dict(tn.embeddings.predict_costs()),
        measured_costs(),
        (lambda got: set(got) != {"multiply_adds", "bytes_out", "bytes_grad"},
         'The keys are "multiply_adds", "bytes_out" and "bytes_grad".'),
        (lambda got: got["multiply_adds"] == 8 * 16 * 32,
         "multiply_adds: that many are not with zero. The product does not know that, and takes all 1000 columns."),
        (lambda got: got["multiply_adds"] == 16 * 1000 * 32,
         "multiply_adds: there are 8 texts of 16 ids; you have counted one text."),
        (lambda got: got["multiply_adds"] == 2 * 8 * 16 * 1000 * 32,
         "multiply_adds: a multiplication and the addition after it count as one, as the meter counts them."),
        (lambda got: got["multiply_adds"] != 8 * 16 * 1000 * 32,
         "multiply_adds: each of the ids has a one-hot row of 1000 numbers, and each of 32 columns takes all of them."),
        (lambda got: got["bytes_out"] == 8 * 16 * 32, "bytes_out: so many numbers, of four bytes each."),
        (lambda got: got["bytes_out"] == 8 * 16 * 4, "bytes_out: each id becomes a vector of 32 numbers."),
        (lambda got: got["bytes_out"] != 8 * 16 * 32 * 4,
         "bytes_out: the result has the shape (8, 16, 32), and a float32 has four bytes."),
        (lambda got: got["bytes_grad"] == 8 * 16 * 32 * 4,
         "bytes_grad: at most 128 rows are not zero, but the gradient is the whole table: it has the table's shape."),
        "bytes_grad: the gradient has the shape of the table, (1000, 32), and a float32 has four bytes.",
        see=LAYER,
    )  # fmt: skip


def test_the_layer():
    expect(
        "the shape of Embedding(7, 3)(ids (2, 3))",
        lambda: tn.Embedding(7, 3)(tt.tensor(IDS)).shape,
        (2, 3, 3),
        see=LAYER,
    )
    expect(
        "mean and spread of the 40,000 numbers of Embedding(400, 100)",
        lambda: [(w := tn.Embedding(400, 100).weight.numpy()).mean(), w.std() - 1],
        lambda out: bool(np.abs(np.asarray(out)).max() < 0.02),
        (lambda out: out[1] < -0.1, "The vectors are drawn with variance 1: there is no fan-in in a table."),
        see=LAYER,
    )

    def padded(index):
        layer = tn.Embedding(6, 3, padding_idx=index)
        before = np.abs(layer.weight.numpy()).sum(1) > 0
        layer.reset_parameters()
        return [before.tolist(), (np.abs(layer.weight.numpy()).sum(1) > 0).tolist()]

    for index in (2, -1):
        rows = [i != index % 6 for i in range(6)]
        expect(
            f"which rows of Embedding(6, 3, padding_idx={index}) are not zero, new and drawn anew",
            lambda index=index: padded(index),
            [rows, rows],
            ([[True] * 6] * 2, "The vector of padding_idx starts at zero."),
            see=LAYER,
        )


def test_a_text_is_full_of_questions():
    ids = [5, 9, 2, 7, 7, 0, 3]
    windows = np.array([ids[i : i + 5] for i in range(3)])
    expect(
        "questions([5, 9, 2, 7, 7, 0, 3])",
        lambda: tn.embeddings.questions(ids),
        (windows[:, [0, 1, 3, 4]], windows[:, 2]),
        (lambda out: np.shape(out[0]) == (3, 5), "The place itself is the answer, and must not be among the inputs."),
        (lambda out: len(out[0]) > 3 or len(out[0]) != len(out[1]),
         "A place at the edge has not all of its four neighbours, and is no question."),
        (lambda out: len(out[0]) < 3, "There are as many questions as ids, less four: mind the last window."),
        (lambda out: np.array_equal(out[0], windows[:, :4]), "Two neighbours are to the left, and two to the right."),
        "Each row has the ids at places t - 2, t - 1, t + 1 and t + 2, and its answer is the id at place t.",
        see=LEARNED,
    )  # fmt: skip
    expect(
        "the shapes of questions([1, 2, 3, 4, 5]), and whether they are tensors of integers",
        lambda: [(x.shape, isinstance(x, tt.Tensor) and x.dtype.kind == "i") for x in
                 tn.embeddings.questions([1, 2, 3, 4, 5])],
        [((1, 4), True), ((1,), True)],
        "Five ids have one place with two neighbours on either side: x is (1, 4) and y is (1,).",
        see=LEARNED,
    )  # fmt: skip


def test_a_table_in_two_places():
    def found(tied):
        model = tn.embeddings.FillTheGap(300, 8, tied)
        one = model.head.weight is model.table.weight
        return one, {name: weight.shape for name, weight in model.named_parameters()}

    weights = {"table.weight": (300, 8), "mix.weight": (8, 32), "mix.bias": (8,), "head.bias": (300,)}
    expect(
        "FillTheGap(300, 8): is head.weight the table's weight itself? And its parameters with their shapes",
        lambda: found(True),
        (True, weights),
        (lambda got: not got[0], "Tying is one parameter in two modules: self.head.weight = self.table.weight."),
        (RuntimeError, "Write numbers of NumPy into a parameter, and tie by assigning the parameter, not its numbers."),
        (lambda got: got[1].get("mix.weight") == (8, 8),
         "Four vectors of 8 numbers lie side by side when they come to `mix`: its input has 32."),
        "`table` is Embedding(300, 8), `mix` is Linear(32, 8), `head` is Linear(8, 300).",
        see=LEARNED,
    )  # fmt: skip
    expect(
        "the same of FillTheGap(300, 8, tied=False)",
        lambda: found(False),
        (False, {**weights, "head.weight": (300, 8)}),
        ((True, weights), "Only a tied model shares the table: with tied=False the head keeps its own weight."),
        see=LEARNED,
    )
    for tied in (True, False):
        expect(
            f"the spread of the table of FillTheGap(300, 8, tied={tied})",
            lambda tied=tied: float(tn.embeddings.FillTheGap(300, 8, tied).table.weight.numpy().std()),
            between(0.09, 0.11),
            (between(0.9, 1.1), "The vectors are small at the start: a tenth of what Embedding draws."),
            (between(0.005, 0.03), "They are divided by ten twice."),
            (between(0.15, 0.3), "The head takes the table's weight, and not the table the head's."),
            see=LEARNED,
        )


def test_neighbours():
    table = np.array([[1.0, 0.0], [10.0, 1.0], [0.0, 2.0], [-3.0, 0.0], [3.0, 3.0]])
    length = np.linalg.norm(table, axis=1)
    cosines = table @ table[0] / length / length[0]
    expect(
        "nearest([[1, 0], [10, 1], [0, 2], [-3, 0], [3, 3]], token 0, 3)",
        lambda: tn.nearest(tt.Tensor(table), 0, 3),
        [(1, float(cosines[1])), (4, float(cosines[4])), (2, float(cosines[2]))],
        (lambda out: len(out) == 3 and out[0][0] == 0, "The token itself is left out."),
        (lambda out: out[0][0] == 3, "The nearest has the greatest cosine: from the largest down."),
        (lambda out: abs(out[0][1]) > 1.01, "A cosine is the product divided by both lengths."),
        (
            lambda out: [row for row, _ in out] == [1, 4, 2],
            "The order is right, but these are no cosines: divide by both lengths.",
        ),
        see=LEARNED,
    )
    zeros = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [2.0, 0.0]])
    expect(
        "nearest([[0, 0], [1, 1], [-1, 0], [2, 0]], token 3, 9)",
        lambda: tn.nearest(tt.Tensor(zeros), 3, 9),
        [(1, 0.5**0.5), (0, 0.0), (2, -1.0)],
        (lambda out: any(np.isnan(cosine) for _, cosine in out), "A row of zeros has no length: do not divide by 0."),
        (lambda out: len(out) > 3, "The token itself is left out, however many are asked for."),
        see=LEARNED,
    )
    expect(
        "the cosines of nearest([[0, 0], [1, 1], [-1, 0], [2, 0]], token 0, 3)",
        lambda: [cosine for _, cosine in tn.nearest(tt.Tensor(zeros), 0, 3)],
        [0.0, 0.0, 0.0],
        "A row of zeros has the cosine 0 with all.",
        see=LEARNED,
    )
    expect(
        "the types in nearest(weight, 0, 1)[0]",
        lambda: [type(part).__name__ for part in tn.nearest(tt.randn(3, 2), 0, 1)[0]],
        ["int", "float"],
        "A row is an int and a cosine a float, not numbers of NumPy.",
        see=LEARNED,
    )
    for token in (5, -1):
        expect(
            f"nearest(weight (5, 2), token {token}, 3)",
            lambda token=token: tn.nearest(tt.Tensor(table), token, 3),
            IndexError,
            "`refuse_ids(np.asarray(token), len(weight))` refuses a token without a row; NumPy counts -1 from the end.",
            see=LEARNED,
        )


def test_in_a_plane():
    points = numbers(8, 2) * [3.0, 1.0]
    flat = np.zeros((8, 5))
    flat[:, [1, 3]] = points
    apart = np.linalg.norm(points[:, None] - points, axis=-1)

    def distances(vectors):
        out = np.asarray(tn.embeddings.in_a_plane(vectors))
        return np.linalg.norm(out[:, None] - out, axis=-1)

    expect(
        "distances in the plane between 8 points that lie in a plane of five dimensions",
        lambda: distances(flat + 100.0),
        apart,
        (
            lambda out: out.shape == apart.shape and np.all(out <= apart * 1.001),
            "The two directions are those of the largest differences: subtract the mean first.",
        ),
        see=LEARNED,
    )
    spread = numbers(40, 6) * [5.0, 1.0, 0.1, 3.0, 0.2, 1.0]
    values = np.linalg.svd(spread - spread.mean(0), compute_uv=False)
    expect(
        "the lengths of the two columns of in_a_plane(40 points in six dimensions)",
        lambda: np.linalg.norm(np.asarray(tn.embeddings.in_a_plane(spread)), axis=0),
        values[:2],
        "The coordinates are the products of the centred vectors with the first two directions.",
        see=LEARNED,
    )


def test_positions():
    expect(
        "frequencies(6, base=1000.0)",
        lambda: tn.embeddings.frequencies(6, 1000.0),
        [1.0, 0.1, 0.01],
        (lambda out: len(out) == 6, "There is one frequency for each pair of numbers."),
        "base ** (-2 i / dim), for i from 0 to dim / 2 - 1.",
        see=PLACES,
    )
    for dim in (3, 0):
        expect(
            f"frequencies({dim})",
            lambda dim=dim: tn.embeddings.frequencies(dim),
            ValueError,
            "Pairs need an even number.",
            see=PLACES,
        )
    angles = np.arange(5)[:, None] * 10_000.0 ** (-np.arange(0, 6, 2) / 6)
    wanted = np.zeros((5, 6))
    wanted[:, 0::2], wanted[:, 1::2] = np.sin(angles), np.cos(angles)
    swapped = wanted.reshape(5, 3, 2)[..., ::-1].reshape(5, 6)
    expect(
        "sinusoidal_positions(5, 6)",
        lambda: tn.sinusoidal_positions(5, 6),
        wanted,
        (swapped, "Sines stand in the even columns, cosines in the odd ones."),
        (np.concatenate([np.sin(angles), np.cos(angles)], 1), "Sine and cosine of one angle stand side by side."),
        see=PLACES,
    )


def test_positions_are_float32():
    expect(
        "the dtype of sinusoidal_positions(5, 6)",
        lambda: tn.sinusoidal_positions(5, 6).dtype,
        np.dtype("float32"),
        "NumPy computes in float64; the tensor is to be float32.",
        see=PLACES,
    )


def test_learned_positions():
    def moved():
        layer = tn.LearnedPositions(6, 3)
        layer.weight.copy_(numbers(6, 3))
        return layer(tt.Tensor(np.zeros((2, 4, 3))))

    expect(
        "LearnedPositions(6, 3) on zeros (2, 4, 3)",
        moved,
        np.stack([numbers(6, 3)[:4]] * 2),
        "Each place adds its own row, the same for every text of the batch.",
        see=PLACES,
    )
    expect(
        "LearnedPositions(3, 3) on 4 tokens",
        lambda: tn.LearnedPositions(3, 3)(tt.zeros(4, 3)).shape,
        ValueError,
        "There are no more places than rows.",
        see=PLACES,
    )


def turned(x, angles, interleaved):
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    first, second = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
    return np.stack([first, second], -1).reshape(x.shape) if interleaved else np.concatenate([first, second], -1)


def test_turning():
    x, angles = numbers(2, 3, 4), numbers(3, 2)
    for interleaved in (True, False):
        expect(
            f"rotate_pairs(x (2, 3, 4), angles (3, 2), interleaved={interleaved})",
            lambda interleaved=interleaved: tn.rotate_pairs(x, angles=angles, interleaved=interleaved),
            turned(x, angles, interleaved),
            (turned(x, -angles, interleaved), "It turns clockwise: the first number of a pair is a cos - b sin."),
            (
                lambda out: not np.allclose(np.linalg.norm(out), np.linalg.norm(x)),
                "Lengths have changed, and turning keeps them: (a cos - b sin, a sin + b cos).",
            ),
            (turned(x, angles, not interleaved), "The pairs are mixed up: (0, 1), (2, 3) if interleaved, else halves."),
            see=TURNING,
        )
    def kept():
        given = x.astype(np.float32)
        out = tn.rotate_pairs(given, angles=angles, interleaved=True)
        return out.dtype, np.array_equal(given, x.astype(np.float32))

    expect(
        "the dtype of rotate_pairs for x of float32 and angles of float64, and whether x is as it was",
        kept,
        (np.dtype("float32"), True),
        (lambda got: not got[1], "A primitive leaves its inputs alone: make a new array for the result."),
        "The result has the dtype of x: take cosine and sine in it.",
        see=TURNING,
    )
    rates = 10_000.0 ** (-np.arange(0, 4, 2) / 4)
    expect(
        "rotary(x (2, 3, 4))",
        lambda: tn.rotary(tt.Tensor(x)),
        turned(x, np.arange(3)[:, None] * rates, True),
        (turned(x, (np.arange(3) + 1)[:, None] * rates, True), "The first place is 0, and does not turn at all."),
        see=TURNING,
    )
    expect(
        "rotary(x (2, 3, 4), positions [7, 8, 20], base=100.0, interleaved=False)",
        lambda: tn.rotary(tt.Tensor(x), [7, 8, 20], 100.0, False),
        turned(x, np.array([7, 8, 20])[:, None] * np.array([1, 0.1]), False),
        "The angles are places times frequencies.",
        see=TURNING,
    )
    for said, places in (("one place for all, [5]", [5]), ("places for each text, (2, 3)", [[0, 1, 2], [7, 8, 9]])):
        expect(
            f"rotary(x (2, 3, 4)) with {said}",
            lambda places=places: tn.rotary(tt.Tensor(x), places),
            turned(x, np.array(places)[..., None] * rates, True),
            (ValueError, "Positions are anything that broadcasts to (..., T), with (1,) or (2, T) among it."),
            "The angles are places times frequencies.",
            see=TURNING,
        )
    for said, places in (("at 2 positions", [0, 1]), ("with positions=4, a single number", 4)):
        expect(
            f"rotary of 3 tokens {said}",
            lambda places=places: tn.rotary(tt.Tensor(x), places).shape,
            ValueError,
            "A place for each token, or one for all of them in a list.",
            see=TURNING,
        )
    for wrong in (np.arange(12).reshape(3, 4), np.zeros(4)):
        expect(
            f"rotary of a tensor of shape {wrong.shape} and dtype {wrong.dtype}",
            lambda wrong=wrong: tn.rotary(tt.Tensor(wrong, wrong.dtype)).shape,
            ValueError,
            "Only floats can be turned." if wrong.ndim > 1 else "(..., T, D): without a T there are no places.",
            see=TURNING,
        )

    def product(t):
        query, key = tt.Tensor(numbers(2, 1, 8)[0]), tt.Tensor(numbers(2, 1, 8)[1])
        return (tn.rotary(query, [t]) * tn.rotary(key, [t + 4])).sum().item()

    expect(
        "how much the product of two vectors, turned at places t and t + 4, depends on t",
        lambda: abs(product(0) - product(50)),
        between(0, 1e-9),
        "Only the distance counts, since both turn by the same angle.",
        see=TURNING,
    )


def test_embedding_bag():
    ids, table = np.array([[1, 2, 0], [2, 2, 4], [0, 0, 0]]), numbers(5, 3)
    wanted = np.stack([(table[1] + table[2]) / 2, (2 * table[2] + table[4]) / 3, np.zeros(3)])
    expect(
        "embedding_bag(ids [[1, 2, 0], [2, 2, 4], [0, 0, 0]], weight (5, 3), padding_idx=0)",
        lambda: tn.embeddings.embedding_bag(tt.tensor(ids), tt.Tensor(table), 0),
        wanted,
        (table[ids].mean(1), "The padding counts: it must not, neither in the sum nor in the number of tokens."),
        (wanted * [[2 / 3], [1], [1]], "The number of tokens has the padding in it."),
        (
            lambda out: bool(np.isnan(out).any()),
            "A text of padding only has no tokens; divide by at least 1.",
        ),
        (wanted * [[2], [3], [1]], "A mean is wanted, and not a sum."),
        see=EXERCISES,
    )
    table[0] = np.inf
    expect(
        "the same with a vector of infinities for the padding",
        lambda: tn.embeddings.embedding_bag(tt.tensor(ids), tt.Tensor(table), 0),
        wanted,
        "0 times infinity is nan: take a zero in the place of the padding's vector with `tt.where`.",
        see=EXERCISES,
    )
    expect(
        "the dtype of embedding_bag(ids, weight of float32, 0)",
        lambda: tn.embeddings.embedding_bag(tt.tensor(ids), tt.randn(5, 3), 0).dtype,
        np.dtype("float32"),
        "The mean has the dtype of the weight.",
        see=EXERCISES,
    )
