"""torch's constants that say how numbers are kept: dtypes that NumPy lacks, layouts, memory formats."""

from __future__ import annotations


class Absent:
    """A dtype of torch's that NumPy does not have. It can be named and compared; every use of it is refused."""

    is_floating_point = is_complex = False

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f"torch.{self.name} (of which NumPy has no numbers)"


class Named:
    """A constant with a name, such as torch.strided."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self):
        return f"torch.{self.name}"


class layout(Named):
    """How the numbers of a tensor are stored: torch.strided."""


class memory_format(Named):
    """The order of the numbers in memory. NumPy's arrays have their own, so every value is accepted and ignored."""


bfloat16, complex32, complex64, complex128, float8_e4m3fn, float8_e5m2, qint8, quint8, qint32 = map(
    Absent, "bfloat16 complex32 complex64 complex128 float8_e4m3fn float8_e5m2 qint8 quint8 qint32".split()
)
chalf, cfloat, cdouble = complex32, complex64, complex128
strided, sparse_coo, sparse_csr = map(layout, ("strided", "sparse_coo", "sparse_csr"))
contiguous_format, preserve_format, channels_last, channels_last_3d = map(
    memory_format, ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
)
