"""torch.testing: tensors that should be equal."""

import numpy as _np
import tt_tensor as _tt

from tinytorch._names import offer as _offer

__getattr__, __dir__ = _offer(__name__)

_TOLERANCES = {"float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}


def assert_close(
    actual, expected, *, allow_subclasses=True, rtol=None, atol=None, equal_nan=False, check_device=True,
    check_dtype=True, check_layout=True, check_stride=False, msg=None,
):
    """AssertionError unless two tensors, or nested sequences and dictionaries of them, have the same shapes, the same
    dtypes (if check_dtype) and nearly the same numbers; the tolerances are torch's."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        assert_close(list(actual), list(expected), msg="the keys differ")
        actual, expected = [*actual.values()], [*(expected[key] for key in actual)]
    if isinstance(actual, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(actual) != len(expected):
            raise AssertionError(msg or f"{len(actual)} values beside {len(expected)}")
        options = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype, "msg": msg}
        for one, other in zip(actual, expected):
            assert_close(one, other, **options)
        return
    if isinstance(actual, str):
        if actual != expected:
            raise AssertionError(msg or f"{actual!r} is not {expected!r}")
        return
    one, other = map(_array, (actual, expected))
    if one.shape != other.shape or (check_dtype and one.dtype != other.dtype):
        raise AssertionError(msg or f"{one.dtype} of shape {one.shape} beside {other.dtype} of shape {other.shape}")
    if (rtol is None) != (atol is None):
        raise ValueError("rtol and atol must be given together, or both left out")
    tolerance = max(_TOLERANCES.get(a.dtype.name, (0.0, 0.0)) for a in (one, other))
    rtol, atol = tolerance if rtol is None else (rtol, atol)
    _np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, equal_nan=equal_nan, err_msg=msg or "")


def _array(value):
    return value.detach().numpy() if isinstance(value, _tt.Tensor) else _np.asarray(value)


def assert_allclose(actual, expected, rtol=None, atol=None, equal_nan=True, msg=""):
    """assert_close without a look at dtypes."""
    assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, check_dtype=False, msg=msg or None)
