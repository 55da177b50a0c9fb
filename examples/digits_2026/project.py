"""Digits: a network of convolutions reads the 8 x 8 digits of chapter 08, within the budget in budget.toml."""

import sys
from collections.abc import Iterator

import numpy as np

import tt_autograd
from tt_autograd import Batches, Schedule, fit, load_checkpoint, no_grad
from tt_optim import AdamW, OneCycleLR
from tt_spatial import BatchNorm2d, Conv2d, MaxPool2d
from tt_tensor import Dropout, Flatten, Linear, Module, ReLU, Sequential, Tensor, cross_entropy, from_numpy, generator

EPOCHS = 15


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The digits as images (N, 1, 8, 8) with class numbers (N,), for training and held out."""
    (x, y), (unseen, truth) = tt_autograd.training.digits()
    return (x.reshape(-1, 1, 8, 8), y), (unseen.reshape(-1, 1, 8, 8), truth)


def network() -> Module:
    """(N, 1, 8, 8) -> (N, 10)."""
    return Sequential(
        Conv2d(1, 16, 3, padding=1), BatchNorm2d(16), ReLU(),
        Conv2d(16, 32, 3, padding=1), BatchNorm2d(32), ReLU(), MaxPool2d(2),
        Flatten(), Dropout(0.3), Linear(32 * 4 * 4, 10),
    )  # fmt: skip


# A digit that is moved by a pixel is still the same digit. Each batch is moved at random, by up to one pixel in each
# direction, so that the network sees every digit in nine places.


class Moved:
    """Batches of images (N, C, H, W), each moved by up to a pixel."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.batches:
            framed = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
            top, left = generator().integers(3, size=2)
            yield from_numpy(framed[:, :, top : top + x.shape[2], left : left + x.shape[3]].copy()), y


def train(x: Tensor, y: Tensor, seed: int) -> Module:
    """A trained network. The checker has already called manual_seed(seed)."""
    model, batches = network(), Moved(Batches(x, y, batch_size=64, shuffle=True))
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    rate = Schedule(OneCycleLR(optimizer, 1e-2, EPOCHS * len(batches)), each="step")
    fit(model, cross_entropy, optimizer, batches, epochs=EPOCHS, callbacks=[rate], progress=False)
    return model


def predict(model: Module, x: Tensor) -> Tensor:
    """Logits (N, 10) for images (N, 1, 8, 8)."""
    model.eval()
    with no_grad():
        return model(x)


def main(arguments: list[str]) -> int:
    """Print the answers to the images in a .npy file, from the weights in another file."""
    if len(arguments) != 2:
        print("give two files: model.safetensors and examples.npy", file=sys.stderr)
        return 2
    model = network()
    model.load_state_dict(load_checkpoint(arguments[0]))
    print(*predict(model, from_numpy(np.load(arguments[1]))).numpy().argmax(1).tolist(), sep="\n")
    return 0
