"""Chapter 10: data sets, the data loader, transforms."""

from tt_data.common import Compose, Sampler, SequentialSampler, Transform, grid
from tt_data.dataloader import (
    BatchSampler, Dataset, Images, Normalize, RandomCrop, RandomHorizontalFlip,
    RandomSampler, Subset, TensorDataset, ToFloat, channel_statistics,
    collate, random_split,
)
from tt_data.datasets import *
from tt_data.datasets import __all__ as _datasets
from tt_data.downloads import *
from tt_data.downloads import __all__ as _downloads
from tt_data.formats import *
from tt_data.formats import __all__ as _formats
from tt_data.more_data import *
from tt_data.more_data import __all__ as _more_data
from tt_data.torch_loader import *
from tt_data.torch_loader import __all__ as _torch_loader

# The contract: what other packages may use.
__all__ = [
    "BatchSampler", "Compose", "Dataset", "Images", "Normalize", "RandomCrop", "RandomHorizontalFlip",
    "RandomSampler", "Sampler", "SequentialSampler", "Subset", "TensorDataset", "ToFloat", "Transform",
    "channel_statistics", "collate", "grid", "random_split", *_datasets, *_downloads, *_formats,
    *_more_data, *_torch_loader,
]
