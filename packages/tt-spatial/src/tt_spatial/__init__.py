"""Chapter 09: convolution, pooling, normalization."""

from tt_spatial.common import padded
from tt_spatial.pictures import framed_digits
from tt_spatial.spatial import *
from tt_spatial.spatial import __all__ as _spatial
from tt_spatial.more_spatial import *  # isort: skip  (built on the chapter)
from tt_spatial.more_spatial import __all__ as _more_spatial  # isort: skip
from tt_spatial.norms import *  # isort: skip
from tt_spatial.norms import __all__ as _norms  # isort: skip

# The contract: what other packages may use.
__all__ = [*_spatial, *_more_spatial, *_norms, "framed_digits", "padded"]
