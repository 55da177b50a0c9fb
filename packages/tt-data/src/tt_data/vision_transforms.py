# # Transforms of one image
#
# An appendix of chapter 10: torchvision's transforms, which are the functions of the appendix *Changes of one image* as
# objects, so that you can pass them to a data set. Each changes one image: a picture, an array of bytes (H, W) or (H,
# W, C), or a tensor (..., C, H, W). The form stays the same, unless the name says otherwise.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tt_data import vision_functional as functional
from tt_data.vision_functional import InterpolationMode, get_dimensions, pair
from tt_tensor import Module, Tensor, generator

# ## In a row


class Compose:
    """Several transforms, one after the other."""

    def __init__(self, transforms: Iterable[Callable]):
        self.transforms = list(transforms)

    def __call__(self, img) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self):
        return "\n    ".join(["Compose(", *map(repr, self.transforms)]) + "\n)"


# Your own function can be one of them.


class Lambda:
    """A function of your own as a transform."""

    def __init__(self, lambd: Callable):
        if not callable(lambd):
            raise TypeError(f"Lambda takes a function, not a {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, img) -> Any:
        return self.lambd(img)

    def __repr__(self):
        return "Lambda()"


# ## Into tensors


class ToTensor:
    """A picture or an array (H, W[, C]) as a tensor (C, H, W): bytes become float32 from 0 to 1."""

    def __call__(self, pic) -> Tensor:
        return functional.to_tensor(pic)

    def __repr__(self):
        return "ToTensor()"


class PILToTensor:
    """A picture or an array (H, W[, C]) as a tensor (C, H, W) of the same numbers."""

    def __call__(self, pic) -> Tensor:
        return functional.pil_to_tensor(pic)

    def __repr__(self):
        return "PILToTensor()"


# We write the others as modules without parameters, as torchvision does, so they also work inside a `Sequential`. Each
# shows the options that you made it with.


class ImageModule(Module):
    """A transform that is a module: derive from it, name the options to show, and write `forward`."""

    shown: tuple[str, ...] = ()

    def __repr__(self):
        options = ", ".join(f"{name}={_short(getattr(self, name))}" for name in self.shown)
        return f"{type(self).__name__}({options})"


def _short(value) -> str:
    return value.value if isinstance(value, InterpolationMode) else str(value)


# The first two work on tensors.


class ConvertImageDtype(ImageModule):
    """A tensor image in another dtype, with its values scaled to the range of that."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = np.dtype(dtype)

    def forward(self, image: Tensor) -> Tensor:
        """The image in the other dtype."""
        return functional.convert_image_dtype(image, self.dtype)


class Normalize(ImageModule):
    """(image - mean) / std for each channel of a tensor image of floats."""

    shown = "mean", "std"

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False):
        super().__init__()
        self.mean, self.std, self.inplace = mean, std, inplace

    def forward(self, tensor: Tensor) -> Tensor:
        """The normalized image."""
        return functional.normalize(tensor, self.mean, self.std, self.inplace)


def check_the_usual_two():
    change = Compose([ToTensor(), Normalize([0.5], [0.25])])
    assert np.allclose(change(np.array([[0, 51, 255]], np.uint8)).tolist(), [[[-2, -1.2, 2]]])


# ## The same for every image


class Resize(ImageModule):
    """The image in another size: (height, width), or one number for its shorter side."""

    shown = "size", "interpolation", "max_size", "antialias"

    def __init__(
        self, size: int | Sequence[int], interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        max_size: int | None = None, antialias: bool | None = True,
    ):
        super().__init__()
        self.size, self.interpolation, self.max_size, self.antialias = size, interpolation, max_size, antialias

    def forward(self, img) -> Any:
        """The resized image."""
        return functional.resize(img, self.size, self.interpolation, self.max_size, self.antialias)


# The next three change the frame and the colours.


class CenterCrop(ImageModule):
    """The window of `size` (a number, or height and width) in the middle; zeros around a smaller image."""

    shown = ("size",)

    def __init__(self, size: int | Sequence[int]):
        super().__init__()
        self.size = pair(size)

    def forward(self, img) -> Any:
        """The middle."""
        return functional.center_crop(img, self.size)


class Pad(ImageModule):
    """A frame of `padding` pixels: one number, two (left and right, top and bottom) or four (left, top, right,
    bottom)."""

    shown = "padding", "fill", "padding_mode"

    def __init__(self, padding: int | Sequence[int], fill: float | Sequence[float] = 0, padding_mode: str = "constant"):
        super().__init__()
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def forward(self, img) -> Any:
        """The framed image."""
        return functional.pad(img, self.padding, self.fill, self.padding_mode)


# In grey, an image can still have three channels.


class Grayscale(ImageModule):
    """The image in grey, with one channel or three equal ones."""

    shown = ("num_output_channels",)

    def __init__(self, num_output_channels: int = 1):
        super().__init__()
        self.num_output_channels = num_output_channels

    def forward(self, img) -> Any:
        """The grey image."""
        return functional.rgb_to_grayscale(img, self.num_output_channels)


# ## At random
#
# These draw from the generator of chapter 01, or, while a batch is being prepared, from the batch's own.


class RandomCrop(ImageModule):
    """A window of `size` (a number, or height and width) at a random place, after `padding` pixels were added. With
    pad_if_needed, an image that is too small gets as many more as it lacks. ValueError if it is too small without."""

    shown = "size", "padding"

    def __init__(
        self, size: int | Sequence[int], padding: int | Sequence[int] | None = None, pad_if_needed: bool = False,
        fill: float | Sequence[float] = 0, padding_mode: str = "constant",
    ):
        super().__init__()
        self.size, self.padding, self.pad_if_needed = pair(size), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    # Programs that crop an image and its mask alike ask for the window by itself.

    @staticmethod
    def get_params(img, output_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random window."""
        free = [found - wanted for found, wanted in zip(get_dimensions(img)[1:], output_size)]
        if min(free) < 0:
            raise ValueError(f"a window of {output_size} does not fit into {get_dimensions(img)[1:]}; add padding")
        top, left = (int(generator().integers(room + 1)) for room in free)
        return top, left, *output_size

    # First the frame, then, if the image is still too small, as much more as it lacks.

    def forward(self, img) -> Any:
        """A random window."""
        if self.padding is not None:
            img = self._padded(img, self.padding)
        if self.pad_if_needed:
            height, width = (max(w - f, 0) for w, f in zip(self.size, get_dimensions(img)[1:]))
            img = self._padded(img, [width, height])
        return functional.crop(img, *self.get_params(img, self.size))

    def _padded(self, img, padding) -> Any:
        return functional.pad(img, padding, self.fill, self.padding_mode)


# Each call decides anew whether to flip.


class _Flip(ImageModule):
    """A mirror image with probability p."""

    shown = ("p",)

    def __init__(self, p: float = 0.5):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability, from 0 to 1, not {p}")
        self.p = p


class RandomHorizontalFlip(_Flip):
    """The image mirrored with probability p: left becomes right."""

    def forward(self, img) -> Any:
        """The image, or its mirror image."""
        return functional.hflip(img) if generator().random() < self.p else img


class RandomVerticalFlip(_Flip):
    """The image upside down with probability p."""

    def forward(self, img) -> Any:
        """The image, or the image upside down."""
        return functional.vflip(img) if generator().random() < self.p else img


# As in the chapter, a crop must be one of the windows that we cut out by hand.


def check_a_random_crop_is_a_window():
    image = np.arange(1, 26, dtype=np.uint8).reshape(5, 5)
    windows = [image[i : i + 3, j : j + 3].tolist() for i in range(3) for j in range(3)]
    drawn = [RandomCrop(3)(image).tolist() for _ in range(50)]
    assert all(window in windows for window in drawn) and len({str(window) for window in drawn}) > 4


# ## For many images at once
#
# A call for each of 60,000 images takes longer than all the arithmetic in them. But most programs say `ToTensor()` and
# `Normalize(...)`, and perhaps something of their own after that. `ToTensor` can convert many pictures of one size at
# once. The other transforms without random numbers accept any dimensions in front of (C, H, W), so they do not even
# notice. Therefore we split the transforms of a program into a head, for a whole batch, and the rest, for one image.

AT_ONCE = (CenterCrop, ConvertImageDtype, Grayscale, Normalize, Pad, Resize)


def split(transform: Callable | None) -> tuple[list[Callable], list[Callable]]:
    """(head, rest): the first transforms as functions of a batch of pictures (N, H, W[, C]), the others as they are."""
    steps = transform.transforms if type(transform) is Compose else [transform] if transform else []
    batched = {ToTensor: functional.to_tensors, PILToTensor: functional.to_byte_tensors}
    first = batched.get(type(steps[0])) if steps else None
    if first is None:
        return [], list(steps)
    end = next((i for i, step in enumerate(steps) if i and type(step) not in AT_ONCE), len(steps))
    return [first, *steps[1:end]], list(steps[end:])


def check_split():
    normalize, own = Normalize([0.5], [0.5]), Lambda(abs)
    head, rest = split(Compose([ToTensor(), normalize, own, normalize]))
    assert head[1:] == [normalize] and rest == [own, normalize]
    assert split(Compose([own, ToTensor()]))[0] == [] and split(None) == ([], [])


__all__ = [
    "CenterCrop", "Compose", "ConvertImageDtype", "Grayscale", "InterpolationMode", "Lambda", "Normalize",
    "PILToTensor", "Pad", "RandomCrop", "RandomHorizontalFlip", "RandomVerticalFlip", "Resize", "ToTensor",
    "functional", "split",
]
