"""The appendices about single images under torchvision's names: `vision.datasets`, `vision.transforms`, `vision.utils`.

Their classes have the names of the chapter's, which work on batches, so they are not exported by the package itself."""

from tt_data import vision_datasets as datasets, vision_transforms as transforms, vision_utils as utils

__all__ = ["datasets", "transforms", "utils"]
