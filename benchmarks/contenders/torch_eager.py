"""PyTorch as most people use it: eager, the default Adam. OMP_NUM_THREADS sets the threads."""

import torch
import workloads as w
from torch import nn
from torch.nn.functional import cross_entropy, gelu, pad, scaled_dot_product_attention
from torch.utils.data import DataLoader, Dataset


def _model(layers):
    parts = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _adam(parameters):
    return torch.optim.Adam(parameters, lr=w.RATE, betas=w.BETAS, eps=w.EPS)


def _step(model, optimizer, x, y):
    loss = cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def mlp():
    x, y, layers = w.mlp()
    x, y, model = torch.tensor(x), torch.tensor(y), _model(layers)
    optimizer = _adam(model.parameters())
    return lambda: _step(model, optimizer, x, y)


def digits():
    x, y, layers = w.digits()
    x, y, model = torch.tensor(x), torch.tensor(y), _model(layers)
    optimizer = _adam(model.parameters())

    def epoch():
        batches = zip(x.split(w.BATCH), y.split(w.BATCH))
        return sum(_step(model, optimizer, a, b) * len(b) for a, b in batches) / len(y)

    return epoch


def adam():
    values, gradients = w.adam()
    parameters = [nn.Parameter(torch.tensor(v)) for v in values]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = torch.tensor(gradient)
    return _adam(parameters).step


def small():
    start, a, b = (torch.tensor(v, requires_grad=True) for v in w.small())

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


LAYERS = {
    "conv": lambda i, o, k, p: nn.Conv2d(i, o, k, padding=p), "pool": lambda: nn.MaxPool2d(2), "relu": nn.ReLU,
    "norm": nn.BatchNorm2d, "flatten": nn.Flatten, "linear": nn.Linear,
}  # fmt: skip


def _images(name):
    x, y, layers, arrays = w.images(name)
    model = nn.Sequential(*(LAYERS[kind](*numbers) for kind, *numbers in layers))
    for layer, given in zip(model, arrays):
        if given:
            layer.weight.data, layer.bias.data = map(torch.tensor, given)
    x, y, optimizer = torch.tensor(x), torch.tensor(y), _adam(model.parameters())
    return lambda: _step(model, optimizer, x, y)


def lenet():
    return _images("lenet")


def cifar():
    return _images("cifar")


def cifar_bn():
    return _images("cifar_bn")


class Photographs(Dataset):
    """Images that are moved, mirrored and normalized one by one, as PyTorch's loader wants it."""

    def __init__(self, images, labels):
        self.images, self.labels = torch.tensor(images), torch.tensor(labels)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        top, left = torch.randint(9, (2,)).tolist()
        image = pad(self.images[index], (4, 4, 4, 4))[:, top : top + 32, left : left + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() / 255 - 0.5) / 0.25, self.labels[index]


def loader():
    data = DataLoader(Photographs(*w.loader()), batch_size=128, shuffle=True, num_workers=2, persistent_workers=True)

    def epoch():
        for _ in data:
            pass

    return epoch


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.ln_1, self.ln_2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (p.view(B, T, self.heads, -1).transpose(1, 2) for p in self.attn.c_attn(self.ln_1(x)).split(C, dim=2))
        found = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn.c_proj(found.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp.c_proj(gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, layers, heads, width, context, vocabulary):
        super().__init__()
        parts = {"wte": nn.Embedding(vocabulary, width), "wpe": nn.Embedding(context, width)}
        parts |= {"h": nn.ModuleList(Block(width, heads) for _ in range(layers)), "ln_f": nn.LayerNorm(width)}
        self.transformer = nn.ModuleDict(parts)

    def forward(self, ids):
        t = self.transformer
        x = t.wte(ids) + t.wpe.weight[: ids.shape[1]]
        for block in t.h:
            x = block(x)
        return t.ln_f(x) @ t.wte.weight.T


def _loaded(name):
    (layers, heads, width, context, _, vocabulary), ids, targets, weights = w.gpt(name)
    model = GPT(layers, heads, width, context, vocabulary)
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model, ids, targets


def _gpt(name):
    model, ids, targets = _loaded(name)
    x, y = torch.tensor(ids), torch.tensor(targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=w.RATE, betas=w.BETAS, eps=w.EPS)

    def step():
        loss = cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def gpt():
    return _gpt("gpt")


def gpt_big():
    return _gpt("gpt_big")


class Cache:
    """Keys and values of one text, reserved for the whole context, which is how a careful user of PyTorch does it."""

    def __init__(self, layers, heads, width, context):
        self.keys, self.values = torch.zeros(2, layers, 1, heads, context, width // heads)
        self.length = 0

    def read(self, model, ids):
        """Logits (V,) after the last of new ids (1, T)."""
        t, start, end = model.transformer, self.length, self.length + ids.shape[1]
        x = t.wte(ids) + t.wpe.weight[start:end]
        for keys, values, block in zip(self.keys, self.values, t.h):
            B, T, C = x.shape
            q, k, v = block.attn.c_attn(block.ln_1(x)).view(B, T, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
            keys[:, :, start:end], values[:, :, start:end] = k, v
            found = scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], is_causal=T > 1)
            x = x + block.attn.c_proj(found.transpose(1, 2).reshape(B, T, C))
            x = x + block.mlp.c_proj(gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh"))
        self.length = end
        return t.ln_f(x[0, -1]) @ t.wte.weight.T


def generate():
    model, ids, _ = _loaded("gpt_big")
    layers, heads, width, context, *_ = w.GPTS["gpt_big"]
    prompt = torch.tensor(ids[:1, : w.PROMPT])

    @torch.inference_mode()
    def write():
        cache, text = Cache(layers, heads, width, context), prompt
        for _ in range(w.WRITTEN):
            text = cache.read(model, text).argmax().view(1, 1)
        return text.item()

    return write


def generate_anew():
    model, ids, _ = _loaded("gpt_big")
    prompt = torch.tensor(ids[:1, : w.PROMPT])

    @torch.inference_mode()
    def write():
        text = prompt
        for _ in range(w.WRITTEN):
            text = torch.cat([text, model(text)[:, -1].argmax(-1, keepdim=True)], 1)
        return text[0, -1].item()

    return write


def _vector(name):
    matrix, x, kind = w.vector(name)
    layer = nn.Linear(*matrix.shape[::-1], bias=False)
    layer.weight.data, x, model = torch.tensor(matrix), torch.tensor(x), nn.Sequential(layer)
    if kind == "sparse":
        rows = layer.weight.detach().to_sparse_csr()
        model = lambda x: (rows @ x.T).T
    if kind == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)

    @torch.inference_mode()
    def products():
        for _ in range(w.VECTORS):
            y = model(x)
        return None if kind == "int8" else (y * y).sum().item()  # int8 rounds the vector as well: another result

    return products


def vector_1024_float32():
    return _vector("vector_1024_float32")


def vector_1024_int8():
    return _vector("vector_1024_int8")


def vector_4096_float32():
    return _vector("vector_4096_float32")


def vector_4096_int8():
    return _vector("vector_4096_int8")


def vector_1024_sparse():
    return _vector("vector_1024_sparse")


def vector_4096_sparse():
    return _vector("vector_4096_sparse")
