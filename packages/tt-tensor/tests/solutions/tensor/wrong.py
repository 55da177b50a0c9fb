# says: it shares memory


def as_array(data, dtype=None):
    if isinstance(data, Storage):
        data = data._array
    if dtype is None and not isinstance(data, (np.ndarray, np.generic)):
        dtype = _dtype_of(data)
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise type(error)("rows must have equal lengths and hold numbers") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds real numbers, not {array.dtype}")
    return array if dtype is None else array.astype(dtype, copy=False)
