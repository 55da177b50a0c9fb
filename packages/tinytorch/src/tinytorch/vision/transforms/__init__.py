"""torchvision.transforms: pictures to tensors, and changed pictures."""

from tt_data.vision_transforms import (
    CenterCrop, Compose, ConvertImageDtype, Grayscale, InterpolationMode, Lambda, Normalize, PILToTensor, Pad,
    RandomCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize, ToTensor,
)

from tinytorch._vision import offer as _offer
from tinytorch.vision.transforms import functional

__getattr__, __dir__ = _offer(__name__)
