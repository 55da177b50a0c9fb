"""Graphs as ONNX files and back: what cannot be exported, what the file looks like, and files that lie."""

import os
from pathlib import Path

import numpy as np
import pytest

import tt_nlp
import tt_opt
import tt_spatial as ts
import tt_tensor as tt
from tt_autograd import RULES, rule
from tt_capstone import onnx_files
from tt_capstone.onnx_files import export_language_model, export_onnx, main
from tt_capstone.onnx_reader import import_onnx
from tt_capstone.onnx_trace import Size, band, fitted, ramp, runs_of

onnx = pytest.importorskip("onnx", reason="onnx writes the files: pip install tt-capstone[onnx]")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mlp():
    return tt.Sequential(tt.Linear(4, 3), tt.ReLU(), tt.Dropout(0.5), tt.Linear(3, 2))


def export(function, *arrays, path, **how):
    export_onnx(function, arrays, path, **how)
    return onnx.load(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


# Formulas


def test_a_size_is_a_sum_of_products():
    runs = runs_of({"a": 2, "b": 5})
    assert runs == [{"a": 2, "b": 5}, {"a": 3, "b": 5}, {"a": 2, "b": 6}, {"a": 3, "b": 6}, {"a": 5, "b": 11}]
    assert fitted(runs, [10, 15, 12, 18, 55]) == Size(((("a", "b"), 1),))
    size = fitted(runs, [3 * r["a"] * r["b"] - 2 * r["b"] + 7 for r in runs])
    assert size.at({"a": 10, "b": 100}) == 2807 and str(size) == "7-2*b+3*a*b"
    assert fitted(runs, [4] * 5) == 4
    assert fitted(runs, [r["b"] // 2 for r in runs]) is None and fitted(runs, [r["a"] ** 2 for r in runs]) is None


def test_a_ramp_has_slopes_along_dynamic_dimensions():
    runs = runs_of({"n": 3, "past": 2})
    arrays = [(r["past"] + np.arange(r["n"]))[:, None] * np.array([1.0, 0.5]) for r in runs]
    found = ramp(runs, arrays, (fitted(runs, [len(a) for a in arrays]), 2))
    assert np.allclose(found.at({"n": 2, "past": 10}), [[10, 5], [11, 5.5]], rtol=1e-14)
    squares = [np.arange(r["n"]) ** 2 for r in runs]
    assert ramp(runs, squares, (fitted(runs, [len(a) for a in squares]),)) is None


def test_a_band_has_two_bounds():
    runs = runs_of({"n": 4})
    n = fitted(runs, [r["n"] for r in runs])
    back = [np.arange(r["n"])[:, None] - np.arange(r["n"]) for r in runs]
    found = band(runs, [np.where((b >= 0) & (b < 2), 0.0, -np.inf) for b in back], (n, n))
    assert (found.least, found.most, found.inside, found.outside) == (0, 1, 0.0, -np.inf)
    assert band(runs, [b >= 0 for b in back], (n, n)).most is None
    assert band(runs, [b % 2 == 0 for b in back], (n, n)) is None


# What cannot be exported is refused, with the name of the primitive.


def in_place(x):
    x = x + 1
    x += 1
    return x


REFUSED = {
    "a branch on numbers": (lambda x: x * 2 if x.sum().item() > 0.5 else -x, "call 1 is mul .* or neg .*branch"),
    "a branch without calls": (lambda x: max(x, -x, key=lambda y: y.sum().item()), "one of several values"),
    "a branch on sizes": (lambda x: x * 2 if x.shape[0] > 2 else -x, "branch"),
    "a branch that begins later": (lambda x: x * 2 if x.shape[0] > 6 else x, "does not compute the output output"),
    "numbers outside of the door": (lambda x: x * tt.from_numpy(np.exp(x.numpy())), "mul .*outside of the door"),
    "a number outside of the door": (lambda x: x + 2 * x.max().item(), "add .*outside of the door"),
    "an index outside of the door": (lambda x: x[:, int(x[0].numpy().argmax())], "getitem gets an integer"),
    "randomness": (lambda x: x + tt.rand(3), "add .*outside of the door"),
    "writing in place": (in_place, "in place"),
    "half of a size": (lambda x: x[: x.shape[0] // 2], "getitem has a size that is not a sum of products"),
    "an array of squares": (lambda x: x * tt.from_numpy(np.arange(float(x.shape[0]))[:, None] ** 2), "mul .*ramp"),
    "a slope that depends on a size": (lambda x: tt.leaky_relu(x, x.shape[0] / 10), "leaky_relu gets a parameter"),
    "a mask that is computed": (lambda x: x[x > 0], "getitem"),
    "a loss": (lambda x: tt.cross_entropy(x, tt.tensor([0, 1]).long()), "surprise|fails in a run"),
    "a derivative": (lambda x: tt.gelu_slope(x), "gelu_slope cannot be exported: only a backward pass"),
    "training": (lambda x: ts.batch_norm(x, None, None, training=True), "normalize_channels .*eval"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_graph_cannot_say_is_refused(what, path):
    function, words = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        export_onnx(function, numbers(2, 3), path)
    assert not path.exists()


def test_a_primitive_without_a_translation_is_named(path):
    def unheard_of(x, /):
        return x * 2

    primitive = tt.primitive(unheard_of)
    rule(primitive, None)
    try:
        with pytest.raises(ValueError, match="primitive unheard_of cannot be exported: it has no row in the table"):
            export_onnx(lambda x: primitive(x), numbers(2, 3), path)
    finally:
        del tt.PRIMITIVES["unheard_of"], tt.SLOTS["unheard_of"], RULES[primitive]


def test_positions_that_coincide_by_chance_are_not_frozen(path):
    x = numbers(1, 3)
    export_onnx(lambda x: tt.max(x, 1).values, x, path, dynamic={})
    graph = import_onnx(path)
    for column in range(3):
        x = np.eye(3, dtype=np.float32)[[column]]
        assert graph(tt.from_numpy(x)).tolist() == [1.0]


def test_a_number_that_comes_back_is_found_again(path):
    export_onnx(lambda x: x - x.max().item(), numbers(2, 3), path)
    assert import_onnx(path)(tt.tensor([[5.0, 7.0, 1.0]])).tolist() == [[-2.0, 0.0, -6.0]]


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"dynamic": {"y": {0: "batch"}}}, ValueError, "names the input 'y', and the inputs are input"),
        ({"dynamic": {"input": {2: "batch"}}}, ValueError, "no dimension 2"),
        ({"dynamic": {"input": {0: "n", 1: "n"}}}, ValueError, "n is 2 and 4"),
        ({"names": (["x", "y"], ["z"])}, ValueError, "1 inputs need as many names of their own, not x, y"),
        ({"names": (["x"], ["x"])}, ValueError, "1 outputs need as many names of their own, not x"),
        ({"names": (["x"], ["y", "z"])}, ValueError, "1 outputs need"),
    ],
)
def test_names_and_dimensions_must_fit(how, error, words, path):
    with pytest.raises(error, match=words):
        export_onnx(mlp(), numbers(2, 4), path, **how)


def test_examples_and_results_are_tensors(path):
    with pytest.raises(TypeError, match="not list"):
        export_onnx(mlp(), ([1.0, 2.0],), path)
    with pytest.raises(TypeError, match="returned float"):
        export_onnx(lambda x: x.sum().item(), numbers(2), path)


def test_a_context_that_is_too_short_says_so(path):
    model = tt_nlp.transformers.small_gpt(20, 1, 16, 8)
    with pytest.raises(ValueError, match="up to 16 tokens"):
        export_language_model(model, path)
    with pytest.raises(ValueError, match="fails in a run with .*'length': 9"):
        export_onnx(model, np.zeros((2, 4), np.int64), path)


# The file


def test_the_file_is_readable(path):
    model = mlp()
    proto = export(model, numbers(2, 4), path=path, names=(["pixels"], ["logits"]))
    graph = proto.graph
    assert [node.op_type for node in graph.node] == ["Gemm", "Relu", "Gemm", "Identity"]
    assert [node.output[0] for node in graph.node] == ["0/Gemm", "Relu", "3/Gemm", "logits"]
    assert {tensor.name for tensor in graph.initializer} == {*model.state_dict()}
    shapes = [[d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim]
              for port in (*graph.input, *graph.output)]  # fmt: skip
    assert shapes == [["batch", 4], ["batch", 2]] and proto.opset_import[0].version == 21
    onnx.checker.check_model(proto, full_check=True)


def test_tokens_have_a_batch_and_a_length(path):
    proto = export(tt_nlp.transformers.small_gpt(20, 2, 16, 32), np.array([[1, 2, 3], [4, 5, 6]]), path=path)
    (dims,) = [[d.dim_param for d in port.type.tensor_type.shape.dim] for port in proto.graph.input]
    assert dims == ["batch", "length"]
    assert sum(node.op_type == "Less" for node in proto.graph.node) == 1, "two blocks share a mask"
    assert sum(tensor.name.endswith("wte.weight") for tensor in proto.graph.initializer) == 1, "two layers share it"
    assert not any(tensor.name.startswith("lm_head") for tensor in proto.graph.initializer)


def test_by_the_text_of_the_standard(path):
    """The slow evaluator of the package onnx, at sizes that were never traced."""
    from onnx.reference import ReferenceEvaluator

    model = tt_nlp.transformers.small_gpt(20, 2, 16, 32).eval()
    export_onnx(model, np.arange(6).reshape(2, 3), path)
    evaluator = ReferenceEvaluator(str(path))
    for shape in ((1, 1), (4, 13), (7, 32)):
        ids = np.random.default_rng(0).integers(0, 20, shape)
        (found,) = evaluator.run(None, {"input": ids})
        assert np.allclose(found, model(tt.from_numpy(ids)).detach().numpy(), atol=1e-5)


def test_constants_are_folded(path):
    table = tt.from_numpy(numbers(4))
    proto = export(lambda x: x * (tt.exp(table) + 1), numbers(2, 4), path=path)
    assert [node.op_type for node in proto.graph.node] == ["Constant", "Mul", "Identity"]


def test_what_no_result_needs_is_left_out(path):
    proto = export(lambda x: (tt.exp(x), x + 1)[1], numbers(2, 4), path=path)
    assert [node.op_type for node in proto.graph.node] == ["Constant", "Add", "Identity"]


def test_results_may_be_inputs_constants_and_equal(path):
    export_onnx(lambda x: (x, tt.ones(2), x + 1, x + 1), numbers(2, 3), path)
    x = tt.from_numpy(numbers(5, 3))
    same, constant, one, other = import_onnx(path)(x)
    assert (same == x).all() and constant.tolist() == [1, 1] and (one == x + 1).all() and (other == one).all()


def test_the_model_stays_as_it_is(path):
    model = tt.Sequential(tt.Linear(32, 32), tt.Dropout(0.5))
    tt_opt.quantize_(model, "q8_0")
    model[1].eval()
    export_onnx(model, numbers(2, 32), path)
    assert model.training and not model[1].training and type(model[0]) is tt_opt.QuantizedLinear
    embedding = tt_opt.quantize_(tt.Sequential(tt_nlp.Embedding(9, 32)), "q4_0")
    export_onnx(embedding, np.array([[1, 2]]), path)
    assert type(embedding[0]) is tt_opt.QuantizedEmbedding


def test_kernel_sets_make_no_difference(tmp_path):
    model, ids = tt_nlp.transformers.small_gpt(20, 1, 16, 32), np.arange(6).reshape(2, 3)
    export_onnx(model, ids, tmp_path / "default.onnx")
    with tt_opt.accelerate("fast"):
        export_onnx(model, ids, tmp_path / "fast.onnx")
        assert tt_opt.kernel_set() == "fast"
    assert (tmp_path / "default.onnx").read_bytes() == (tmp_path / "fast.onnx").read_bytes()


def test_writing_that_fails_leaves_the_old_file(path, monkeypatch):
    export_onnx(mlp(), numbers(2, 4), path)
    before = path.read_bytes()

    def fail(*names):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_onnx(mlp(), numbers(2, 4), path)
    assert path.read_bytes() == before and [*path.parent.iterdir()] == [path]


# Reading


def test_what_was_read_back_can_be_trained(path):
    model, x = tt_nlp.transformers.small_gpt(20, 1, 16, 32).eval(), tt.tensor([[1, 2, 3, 4]]).long()
    export_onnx(model, x, path)
    again = import_onnx(path)
    assert {name: p.shape for name, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    for one in (model, again):
        (one(x) ** 2).sum().backward()
    gradients = dict(again.named_parameters())
    for name, parameter in model.named_parameters():
        assert np.allclose(gradients[name].grad.numpy(), parameter.grad.numpy(), rtol=1e-4, atol=1e-5), name


def test_packed_numbers_stay_packed(path):
    model = tt_opt.quantize_(tt.Sequential(tt.Linear(64, 32)), "q4_1")
    export_onnx(model, numbers(2, 64), path)
    again = import_onnx(path)
    assert again.state_dict()["0.rows"].nbytes == 32 * 64 // 2
    assert [name for name, _ in again.named_parameters()] == ["0.bias"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([numbers(2, 5)], r"input is float32 of shape \(batch, 4\), not float32 of \(2, 5\)"),
        ([numbers(4)], r"not float32 of \(4,\)"),
        ([numbers(2, 4).astype(np.float64)], "not float64"),
        ([], "1 inputs, not 0"),
    ],
)
def test_inputs_must_fit(inputs, words, path):
    export_onnx(mlp(), numbers(2, 4), path)
    with pytest.raises(ValueError, match=words):
        import_onnx(path)(*map(tt.from_numpy, inputs))


def test_dimensions_of_one_name_have_one_size(path):
    export_onnx(lambda x, y: x + y, (numbers(2, 3), numbers(2, 3)), path)
    with pytest.raises(ValueError, match="input_1 is"):
        import_onnx(path)(tt.ones(2, 3), tt.ones(1, 3))


# Files that lie. Each change of a good file is refused with a reason.


def with_node(change):
    return lambda proto: change(proto.graph.node[0])


def huge(proto):
    proto.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]


def doubled(proto):
    proto.graph.node.append(proto.graph.node[0])


def cycle(proto):
    proto.graph.node[0].input[0] = proto.graph.node[1].output[0]


def external(proto):
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    proto.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd")


def fewer_bytes(proto):
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-1]


def attribute(name, value):
    return with_node(lambda node: node.attribute.append(onnx.helper.make_attribute(name, value)))


def subgraph(proto):
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("body", onnx.GraphProto()))


LIES = {
    "an operation": (with_node(lambda node: setattr(node, "op_type", "Loop")), r"node '0/Gemm' \(Loop\).*do not read"),
    "a domain": (with_node(lambda node: setattr(node, "domain", "com.example")), "operation that we do not read"),
    "an attribute": (attribute("alpha", 2.0), r"\(Gemm\) has inputs or attributes that we do not read.*alpha"),
    "a subgraph": (subgraph, "the attribute body must be a number"),
    "too many inputs": (with_node(lambda node: node.input.extend(["a", "b"])), r"\(Gemm\) has inputs"),
    "an input from nowhere": (with_node(lambda node: node.input.__setitem__(0, "ghost")), "'ghost', which comes from"),
    "a cycle": (cycle, "needs 'Relu', which comes from a later node, or from itself: a cycle"),
    "two sources": (doubled, r"two sources: \['0/Gemm'\]"),
    "an output from nowhere": (lambda proto: setattr(proto.graph.output[0], "name", "ghost"), "output 'ghost'"),
    "no output": (with_node(lambda node: node.output.pop()), "output without a name"),
    "another opset": (lambda proto: setattr(proto.opset_import[0], "version", 13), r"\{'ai.onnx': 13\}.*opset 21"),
    "external data": (external, "'0.weight' is in another file"),
    "fewer bytes": (fewer_bytes, r"'0.weight' of shape \(3, 4\) takes 48 bytes, and has 47"),
    "a huge shape": (huge, "takes .* bytes, and has 48"),
    "a negative shape": (lambda proto: proto.graph.initializer[0].dims.__setitem__(0, -3), "sizes are at least 0"),
    "a type": (lambda proto: setattr(proto.graph.initializer[0], "data_type", 8), "type 8, which we do not know"),
    "a name": (lambda proto: setattr(proto.graph.initializer[0], "name", "forward"), "comes from nowhere|taken"),
    "an input without a shape": (lambda proto: proto.graph.input[0].type.tensor_type.ClearField("shape"), "no shape"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_refused(lie, path):
    change, words = LIES[lie]
    proto = export(mlp(), numbers(2, 4), path=path)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=words) as refusal:
        import_onnx(path)
    assert str(path) in str(refusal.value)


def test_a_name_that_a_module_has_gets_an_underscore(path):
    proto = export(mlp(), numbers(2, 4), path=path)
    before = import_onnx(path)(tt.from_numpy(numbers(2, 4)))
    for tensor, name in zip(proto.graph.initializer, ("forward.half", "half", "half.weight", "half_"), strict=True):
        for node in proto.graph.node:
            node.input[:] = [name if given == tensor.name else given for given in node.input]
        tensor.name = name
    path.write_bytes(proto.SerializeToString())
    model = import_onnx(path)
    assert [name for name, _ in model.named_parameters()] == ["half_", "half___", "forward_.half_", "half__.weight"]
    assert np.array_equal(model(tt.from_numpy(numbers(2, 4))).numpy(), before.numpy())


@pytest.mark.parametrize("name", [".weight", "0.", "0..weight"])
def test_a_name_with_an_empty_part_is_refused(name, path):
    proto = export(mlp(), numbers(2, 4), path=path)
    first = proto.graph.initializer[0]
    for node in proto.graph.node:
        node.input[:] = [name if given == first.name else given for given in node.input]
    first.name = name
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match="a part of its name is empty"):
        import_onnx(path)


def test_a_node_that_asks_for_too_much_memory_is_refused(path):
    proto = export(lambda x: x.expand(1000, 3), numbers(1, 3), path=path, dynamic={})
    constant = next(node for node in proto.graph.node if node.op_type == "Constant")
    constant.attribute[0].t.raw_data = np.array([1 << 40, 3]).tobytes()
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"node 'Expand' \(Expand\) fails: .* is larger than"):
        import_onnx(path)(tt.ones(1, 3))


def test_damaged_files_end_in_a_reason(path):
    export_onnx(tt_opt.quantize_(tt.Sequential(tt.Linear(32, 4), tt.ReLU()), "q4_1"), numbers(2, 32), path)
    good, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for attempt in range(400):
        data = bytearray(good[: random.integers(len(good))] if attempt % 4 == 0 else good)
        for _ in range(random.integers(1, 4)):
            data[random.integers(len(data))] = random.integers(256)
        path.write_bytes(data)
        try:
            import_onnx(path)(tt.ones(2, 32))
        except ValueError:
            refused += 1
    assert refused > 100


def test_an_empty_file_is_no_graph(path):
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="opset 21"):
        import_onnx(path)
    with pytest.raises(FileNotFoundError):
        import_onnx(path.with_name("none.onnx"))


# The command


def test_the_command(path, monkeypatch, capsys):
    class Loaded:
        model = tt_nlp.transformers.small_gpt(20, 1, 16, 32)

    asked = []
    monkeypatch.setattr(onnx_files, "find_language_model", lambda name: asked.append(name) or Loaded)
    assert main(["some.gguf", str(path), "--cache"]) == 0 and asked == ["some.gguf"]
    assert f"wrote {path}" in (said := capsys.readouterr().out) and "opset 21" in said
    assert [port.name for port in import_onnx(path).inputs] == [
        "input_ids", "past_key_values.0.key", "past_key_values.0.value",
    ]  # fmt: skip
    assert main(["some.gguf", str(Path(path.parent, "none", "model.onnx"))]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["one"], ["one", "two", "three"], ["one", "two", "--what"]])
def test_the_command_explains_itself(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "usage: onnx" in capsys.readouterr().err
