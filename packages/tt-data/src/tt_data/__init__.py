"""Chapter 10: data sets, the data loader, transforms."""

from tt_data.dataloader import *
from tt_data.dataloader import __all__ as _dataloader
from tt_data.datasets import *
from tt_data.datasets import __all__ as _datasets
from tt_data.downloads import *
from tt_data.downloads import __all__ as _downloads
from tt_data.formats import *
from tt_data.formats import __all__ as _formats
from tt_data.more_data import *
from tt_data.more_data import __all__ as _more_data

# The contract: what other packages may use.
__all__ = [*_dataloader, *_datasets, *_downloads, *_formats, *_more_data]
