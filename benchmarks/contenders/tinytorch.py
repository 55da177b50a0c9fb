"""Ours, on the kernel set that TT_KERNELS names, or as the chapters use it."""

import workloads as w

import tt_autograd as ta
import tt_data as td
import tt_nlp as tn
import tt_opt
import tt_spatial as ts
import tt_tensor as tt
from tt_optim import Adam, AdamW

tt.tune_malloc()  # as the examples do; the other contenders bring allocators of their own, or run as they are


def _model(layers):
    parts = []
    for weight, bias in layers:
        linear = tt.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, bias
        parts += [linear, tt.ReLU()]
    return tt.Sequential(*parts[:-1])


def _adam(parameters):
    return Adam(parameters, lr=w.RATE, betas=w.BETAS, eps=w.EPS)


def _training(model, x, y):
    x, y, optimizer = tt.tensor(x), tt.tensor(y), _adam(model.parameters())

    def step():
        loss = tt.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def mlp():
    x, y, layers = w.mlp()
    return _training(_model(layers), x, y)


LAYERS = {
    "conv": lambda i, o, k, p: ts.Conv2d(i, o, k, padding=p), "pool": lambda: ts.MaxPool2d(2), "relu": tt.ReLU,
    "norm": ts.BatchNorm2d, "flatten": tt.Flatten, "linear": tt.Linear,
}  # fmt: skip


def _images(name):
    x, y, layers, arrays = w.images(name)
    model = tt.Sequential(*(LAYERS[kind](*numbers) for kind, *numbers in layers))
    for layer, given in zip(model, arrays):
        if given:
            layer.weight.data, layer.bias.data = given
    return _training(model, x, y)


def lenet():
    return _images("lenet")


def cifar():
    return _images("cifar")


def cifar_bn():
    return _images("cifar_bn")


def digits():
    x, y, layers = w.digits()
    model, data = _model(layers), ta.Batches(tt.tensor(x), tt.tensor(y), w.BATCH)
    optimizer = _adam(model.parameters())
    return lambda: ta.fit(model, tt.cross_entropy, optimizer, data, epochs=1, progress=False)["loss"][0]


def adam():
    values, gradients = w.adam()
    parameters = [tt.Parameter(v) for v in values]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = tt.tensor(gradient)
    return _adam(parameters).step


def small():
    start, a, b = (tt.tensor(v, requires_grad=True) for v in w.small())

    def step():
        x = start
        for _ in range(w.OPERATIONS // 2):
            x = x * a
            x = x + b
        start.grad = a.grad = b.grad = None
        loss = x.sum()
        loss.backward()
        return loss.item()

    return step


def loader():
    change = td.Compose([td.RandomCrop(32, padding=4), td.RandomHorizontalFlip(), td.Normalize([0.5], [0.25])])
    data = td.DataLoader(td.Images(*w.loader(), transform=change), batch_size=128, shuffle=True, num_workers=2)

    def epoch():
        for _ in data:
            pass

    return epoch


def _loaded(name):
    (layers, heads, width, context, _, vocabulary), ids, targets, weights = w.gpt(name)
    model = tn.GPT(tn.GPTConfig(vocabulary, context, layers, heads, width))
    model.load_state_dict({**weights, "lm_head.weight": weights["transformer.wte.weight"]})
    return model, ids, targets


def _gpt(name):
    model, ids, targets = _loaded(name)
    x, y = tt.tensor(ids), tt.tensor(targets)
    optimizer = AdamW(model.parameters(), lr=w.RATE, betas=w.BETAS, eps=w.EPS)

    def step():
        loss = tn.next_token_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def gpt():
    return _gpt("gpt")


def gpt_big():
    return _gpt("gpt_big")


def generate():
    model, ids, _ = _loaded("gpt_big")
    prompt = ids[0, : w.PROMPT].tolist()
    return lambda: tt_opt.generate(model, prompt, w.WRITTEN, temperature=0)[-1]


def generate_anew():
    model, ids, _ = _loaded("gpt_big")
    prompt = ids[0, : w.PROMPT].tolist()
    return lambda: tn.generate(model, prompt, w.WRITTEN, temperature=0)[-1]


def serve(slots=w.REQUESTS):
    model, ids, _ = _loaded("gpt_big")

    def requests():
        batcher = tt_opt.Batcher(model, slots)
        for row in ids[: w.REQUESTS, : w.PROMPT]:
            request = batcher.submit(row, w.WRITTEN, temperature=0)
        batcher.run()
        return request.text[-1]

    return requests


def serve_in_turn():
    return serve(1)


def _vector(name):
    matrix, x, kind = w.vector(name)
    layer = tt.Linear(*matrix.shape[::-1], bias=False)
    layer.weight.copy_(matrix)
    model, x = tt.Sequential(layer), tt.tensor(x)
    if kind != "float32":
        model = tt_opt.sparsify_(model) if kind == "sparse" else tt_opt.quantize_(model, kind)

    def products():
        with ta.no_grad():
            for _ in range(w.VECTORS):
                y = model(x)
        return float((y * y).sum().item())

    return products


def vector_1024_float32():
    return _vector("vector_1024_float32")


def vector_1024_int8():
    return _vector("vector_1024_int8")


def vector_1024_q4_1():
    return _vector("vector_1024_q4_1")


def vector_4096_float32():
    return _vector("vector_4096_float32")


def vector_4096_int8():
    return _vector("vector_4096_int8")


def vector_4096_q4_1():
    return _vector("vector_4096_q4_1")


def vector_1024_sparse():
    return _vector("vector_1024_sparse")


def vector_4096_sparse():
    return _vector("vector_4096_sparse")
