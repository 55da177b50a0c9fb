"""torchvision.utils: many pictures in one, and files of them."""

from tt_data.vision_utils import make_grid, save_image

from tinytorch._vision import offer as _offer

__getattr__, __dir__ = _offer(__name__)
