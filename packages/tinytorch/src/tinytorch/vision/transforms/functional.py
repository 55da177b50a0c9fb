"""torchvision.transforms.functional: what the transforms compute."""

from tt_data.vision_functional import (
    InterpolationMode, center_crop, convert_image_dtype, crop, get_dimensions, get_image_size, hflip, normalize,
    pad, pil_to_tensor, resize, rgb_to_grayscale, to_tensor, vflip,
)

from tinytorch._vision import offer as _offer

__getattr__, __dir__ = _offer(__name__)
