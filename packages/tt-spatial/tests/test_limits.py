"""What chapter 09 refuses, and in which words; layouts and dtypes; the same bits from the same seed; memory."""

import gc
import tracemalloc

import numpy as np
import pytest

import tt_autograd as ta
import tt_spatial as ts
import tt_tensor as tt
from tt_optim import Adam


def images(*shape):
    return tt.zeros(*(shape or (2, 3, 8, 8)))


def filters(*shape):
    return tt.zeros(*(shape or (4, 3, 3, 3)))


SERIES = (2, 3, 9)
REFUSED = [
    ("a kernel larger than the image", lambda: ts.conv2d(images(), filters(4, 3, 9, 2)), "9 x 2 .* 8 x 8"),
    (
        "a reach larger than the image",
        lambda: ts.conv2d(images(), filters(), dilation=4, padding=0),
        "9 x 9 .* 8 x 8",
    ),
    (
        "other channels",
        lambda: ts.conv2d(images(), filters(4, 1, 3, 3)),
        r"\(2, 3, 8, 8\) has 3 .*\(4, 1, 3, 3\).* 1$",
    ),
    ("groups too many", lambda: ts.conv2d(images(), filters(), groups=2), r"3 channels.* 2 groups expects 6"),
    (
        "groups that do not divide",
        lambda: ts.conv2d(images(), filters(4, 1, 3, 3), groups=3),
        r"3 groups.*\(4, 1, 3, 3\)",
    ),
    ("no group", lambda: ts.conv2d(images(), filters(), groups=0), "0 groups"),
    ("a wrong rank", lambda: ts.conv2d(images(8, 8), filters()), r"\(N, C, H, W\).*\(8, 8\)"),
    (
        "weights of a wrong rank",
        lambda: ts.conv2d(images(), filters(4, 3, 3)),
        r"\(4, 3, 3\).*\(O, C / groups, kh, kw\)",
    ),
    ("no filter", lambda: ts.conv2d(images(), filters(0, 3, 3, 3)), r"\(0, 3, 3, 3\)"),
    ("images without rows", lambda: ts.conv2d(images()[:, :, :0], filters()), r"\(2, 3, 0, 8\).*only the batch"),
    ("an array as a stride", lambda: ts.conv2d(images(), filters(), stride=np.array([1, 1])), "stride.*array"),
    ("an array as padding", lambda: ts.conv2d(images(), filters(), padding=np.array([1, 1])), "padding.*array"),
    ("true as a stride", lambda: ts.conv2d(images(), filters(), stride=True), "stride.*True"),
    ("half a group", lambda: ts.conv2d(images(), filters(), groups=0.5), "0.5 groups"),
    ("Conv2d: an array as padding", lambda: ts.Conv2d(1, 1, 3, padding=np.array([1, 1])), "padding.*array"),
    ("Conv2d: half a channel", lambda: ts.Conv2d(1.5, 1, 3), "integers.*1.5 input"),
    ("Conv2d: no group", lambda: ts.Conv2d(1, 1, 3, groups=0), "0 groups"),
    ("Conv1d: an array as padding", lambda: ts.Conv1d(1, 1, 3, padding=np.array([1])), "padding.*array"),
    ("ConvTranspose2d: half a channel", lambda: ts.ConvTranspose2d(1, 1.5, 3), "integers.*1.5 output"),
    ("an unknown word", lambda: ts.conv2d(images(), filters(), padding="some"), "padding.*'some'"),
    (
        "same and a stride",
        lambda: ts.conv2d(images(), filters(), padding="same", stride=2),
        r"same.*stride is \(2, 2\)",
    ),
    ("a bias too short", lambda: ts.conv2d(images(), filters(), tt.zeros(3)), r"bias of shape \(3,\) for 4"),
    (
        "a bias of a wrong rank",
        lambda: ts.conv2d(images(), filters(), tt.zeros(4, 1)),
        r"bias of shape \(4, 1\) for 4",
    ),
    ("a negative stride", lambda: ts.conv2d(images(), filters(), stride=-1), "stride.*at least 1.*-1"),
    ("half a stride", lambda: ts.conv2d(images(), filters(), stride=1.5), "stride.*integer.*1.5"),
    ("three strides", lambda: ts.conv2d(images(), filters(), stride=(1, 2, 3)), r"stride.*pair.*\(1, 2, 3\)"),
    ("a negative padding", lambda: ts.conv2d(images(), filters(), padding=(0, -1)), r"padding.*at least 0.*-1"),
    ("no dilation", lambda: ts.conv2d(images(), filters(), dilation=0), "dilation.*at least 1.*0"),
    ("Conv2d: groups", lambda: ts.Conv2d(3, 4, 3, groups=2), "2 groups.*3 input and 4 output"),
    ("Conv2d: no kernel", lambda: ts.Conv2d(3, 4, 0), "kernel_size.*0"),
    ("Conv2d: no channels", lambda: ts.Conv2d(0, 4, 3), "0 input"),
    ("Conv2d: an unknown word", lambda: ts.Conv2d(3, 4, 3, padding="some"), "padding.*'some'"),
    ("Conv2d: an unknown mode", lambda: ts.Conv2d(3, 4, 3, padding_mode="mirror"), "reflect.*'mirror'"),
    (
        "Conv2d: reflects more than there is",
        lambda: ts.Conv2d(3, 4, 3, 1, 9, padding_mode="reflect")(images()),
        "8.*7.*9",
    ),
    ("conv1d: images", lambda: ts.conv1d(images(), filters(4, 3, 3)), r"\(N, C, L\).*\(2, 3, 8, 8\)"),
    (
        "conv1d: weights of images",
        lambda: ts.conv1d(images(*SERIES), filters()),
        r"\(O, C / groups, k\).*\(4, 3, 3, 3\)",
    ),
    ("conv1d: a kernel too long", lambda: ts.conv1d(images(*SERIES), filters(4, 3, 10)), "10 .* 9"),
    ("Conv1d: a pair", lambda: ts.Conv1d(3, 4, (3, 3)), r"kernel_size.*\(3, 3\)"),
    ("transposed: other channels", lambda: ts.conv_transpose2d(images(), filters()), r"3 channels.*expects 4"),
    ("transposed: bias", lambda: ts.conv_transpose2d(images(), filters(3, 4, 3, 3), tt.zeros(3)), r"\(3,\) for 4"),
    (
        "transposed: padding",
        lambda: ts.conv_transpose2d(images(), filters(3, 4, 3, 3), padding=9),
        r"\(9, 9\).*\(-8, -8\)",
    ),
    (
        "transposed: output_padding",
        lambda: ts.conv_transpose2d(images(), filters(3, 4, 3, 3), stride=2, output_padding=2),
        r"output_padding \(2, 2\).*stride \(2, 2\)",
    ),
    ("ConvTranspose2d: groups", lambda: ts.ConvTranspose2d(3, 4, 3, groups=2), "2 groups.*3 input and 4 output"),
    ("max_pool2d: a window too large", lambda: ts.max_pool2d(images(), (9, 2)), "9 x 2 .* 8 x 8"),
    ("max_pool2d: padding", lambda: ts.max_pool2d(images(), 2, padding=2), r"\(2, 2\) is more than half.*\(2, 2\)"),
    ("max_pool2d: a wrong rank", lambda: ts.max_pool2d(images(8, 8), 2), r"\(8, 8\)"),
    ("max_pool2d: no channel", lambda: ts.max_pool2d(images()[:, :0], 2), r"\(2, 0, 8, 8\)"),
    ("max_pool2d: an array", lambda: ts.max_pool2d(images(), np.array([2, 2])), "kernel_size.*array"),
    ("max_pool2d: no stride", lambda: ts.max_pool2d(images(), 2, stride=0), "stride.*0"),
    ("max_pool1d: images", lambda: ts.max_pool1d(images(), 2), r"\(N, C, L\).*\(2, 3, 8, 8\)"),
    ("avg_pool2d: a window too large", lambda: ts.avg_pool2d(images(), 9), "9 x 9 .* 8 x 8"),
    ("avg_pool2d: padding", lambda: ts.avg_pool2d(images(), 3, padding=2), r"\(2, 2\) is more than half.*\(3, 3\)"),
    ("avg_pool1d: a pair", lambda: ts.avg_pool1d(images(*SERIES), (2, 2)), r"kernel_size.*\(2, 2\)"),
    ("adaptive: nothing", lambda: ts.adaptive_avg_pool2d(images(), 0), "output_size.*0"),
    ("adaptive: three sizes", lambda: ts.adaptive_max_pool2d(images(), (2, 2, 2)), r"output_size.*\(2, 2, 2\)"),
    ("adaptive: a wrong rank", lambda: ts.adaptive_avg_pool2d(images(3), 2), r"\(\.\.\., H, W\).*\(3,\)"),
    ("adaptive: an empty image", lambda: ts.adaptive_max_pool2d(images(2, 3, 0, 4), 2), r"\(2, 3, 0, 4\)"),
    ("interpolate: no size", lambda: ts.interpolate(images()), "size or scale_factor"),
    ("interpolate: two sizes", lambda: ts.interpolate(images(), 4, 2), "size or scale_factor"),
    ("interpolate: to nothing", lambda: ts.interpolate(images(), scale_factor=0.1), r"size.*\(0, 0\)"),
    (
        "interpolate: three factors",
        lambda: ts.interpolate(images(), scale_factor=(1, 2, 3)),
        r"\(2, 3, 8, 8\).*\(1, 2, 3\)",
    ),
    *(
        (f"interpolate: a factor of {f}", lambda f=f: ts.interpolate(images(), scale_factor=f), "factor.*positive")
        for f in (np.nan, np.inf, 0, -1.0, (2, np.nan), "2", np.array([2.0, 2.0]))
    ),
    ("interpolate: half a size", lambda: ts.interpolate(images(), size=2.5), "size.*2.5"),
    ("interpolate: one size of two", lambda: ts.interpolate(images(), size=(2,)), r"size.*\(2,\)"),
    ("interpolate: series between", lambda: ts.interpolate(images(*SERIES), 4, mode="bilinear"), r"\(2, 3, 9\)"),
    ("interpolate: volumes", lambda: ts.interpolate(images(1, 2, 3, 4, 5), 4, mode="area"), r"\(1, 2, 3, 4, 5\)"),
    ("interpolate: no rows", lambda: ts.interpolate(images(1, 2, 0, 4), 4), r"\(1, 2, 0, 4\)"),
    ("interpolate: an unknown mode", lambda: ts.interpolate(images(), 4, mode="cubic"), "bilinear.*'cubic'"),
    ("interpolate: corners of nearest", lambda: ts.interpolate(images(), 4, align_corners=True), "bilinear"),
    ("interpolate: a wrong rank", lambda: ts.interpolate(images(3), 4), r"\(3,\)"),
    ("pad: a number", lambda: ts.pad(images(), 1), r"pair.*1 for shape \(2, 3, 8, 8\)"),
    ("pad: an odd number", lambda: ts.pad(images(), (1, 2, 3)), r"pair.*\(1, 2, 3\) for shape"),
    ("pad: more than there are dimensions", lambda: ts.pad(images(3), (1, 1, 1, 1)), r"\(3,\)"),
    ("pad: halves", lambda: ts.pad(images(), (0.5, 1)), r"\(0.5, 1\)"),
    ("pad: an unknown mode", lambda: ts.pad(images(), (1, 1), "mirror"), "reflect.*'mirror'"),
    ("pad: an unknown mode without padding", lambda: ts.pad(images(), (0, 0), mode="wrap"), "reflect.*'wrap'"),
    ("pad: zeros is a mode of layers", lambda: ts.pad(images(), (1, 1), mode="zeros"), "constant.*'zeros'"),
    ("pad: a value in another mode", lambda: ts.pad(images(), (1, 1), "reflect", 2.0), "value.*2.0.*'reflect'"),
    ("pad: cuts what it does not have", lambda: ts.pad(images(), (-9, 4)), r"\(-9, 4\)"),
    ("pad: inf in integers", lambda: ts.pad(images().long(), (1, 1), value=np.inf), "inf.*int64"),
    ("pad: nan in integers", lambda: ts.pad(images().long(), (1, 1), value=np.nan), "nan.*int64"),
    ("pad: 300 in bytes", lambda: ts.pad(images().to(np.uint8), (1, 1), value=300), "300.*uint8"),
    ("pad: 10^6 in half", lambda: ts.pad(images().to(np.float16), (1, 1), value=1e6), "1000000.0.*float16"),
    ("ZeroPad2d: three sides", lambda: ts.ZeroPad2d((1, 2, 3)), r"\(1, 2, 3\)"),
    ("ZeroPad2d: an array", lambda: ts.ZeroPad2d(np.ones(4)), "padding.*array"),
    ("pad: cuts too much", lambda: ts.pad(images(), (-5, -4)), r"\(2, 3, 8, 8\).*\(-5, -4\)"),
    ("pad: repeats too much", lambda: ts.pad(images(), (9, 0), "circular"), "circular.* 8 .* 9"),
    ("batch_norm: averages", lambda: ts.batch_norm(images(), tt.zeros(4), tt.ones(4)), r"\(2, 3, 8, 8\).*\(4,\)"),
    (
        "batch_norm: weight",
        lambda: ts.batch_norm(images(), None, None, tt.ones(2), None, True),
        r"\(2, 3, 8, 8\).*\(2,\)",
    ),
    (
        "batch_norm: bias",
        lambda: ts.batch_norm(images(), None, None, None, tt.ones(2), True),
        r"\(2, 3, 8, 8\).*\(2,\)",
    ),
    ("batch_norm: one value a channel", lambda: ts.BatchNorm1d(3)(images(1, 3)), r"one value.*\(1, 3\)"),
    ("batch_norm: no averages in evaluation", lambda: ts.batch_norm(images(), None, None), "running mean"),
    ("batch_norm: half of the averages", lambda: ts.batch_norm(images(), tt.zeros(3), None), "running .*variance"),
    (
        "batch_norm: one of two averages in training",
        lambda: ts.batch_norm(images(), tt.zeros(3), None, training=True),
        "running .*variance",
    ),
    ("BatchNorm2d: series", lambda: ts.BatchNorm2d(3)(images(*SERIES)), r"BatchNorm2d.*\(4,\).*\(2, 3, 9\)"),
    ("BatchNorm1d: images", lambda: ts.BatchNorm1d(3)(images()), r"BatchNorm1d.*\(2, 3, 8, 8\)"),
    ("layer_norm: another shape", lambda: ts.layer_norm(images(), (3, 8)), r"\(3, 8\).*\(2, 3, 8, 8\)"),
    ("layer_norm: a weight of another shape", lambda: ts.layer_norm(images(), (8,), tt.ones(7)), r"\(8,\).*weight"),
    ("layer_norm: no shape", lambda: ts.layer_norm(images(), ()), r"\(\).*\(2, 3, 8, 8\)"),
    ("group_norm: groups", lambda: ts.group_norm(images(), 2), r"2 groups.*\(2, 3, 8, 8\)"),
    ("group_norm: weight", lambda: ts.GroupNorm(1, 3)(images(2, 4, 5)), r"\(4,\).*\(2, 4, 5\)"),
    ("group_norm: one value a group", lambda: ts.group_norm(images(1, 3), 3), r"one value.*\(1, 3\)"),
    ("group_norm: half a group", lambda: ts.group_norm(images(), 1.5), "1.5 groups"),
    ("GroupNorm: half a group", lambda: ts.GroupNorm(1.5, 3), "1.5 groups"),
    ("GroupNorm: half a channel", lambda: ts.GroupNorm(1, 3.5), "3.5 channels"),
    ("LayerNorm: half a size", lambda: ts.LayerNorm(8.0), "normalized_shape.*8.0"),
    ("LayerNorm: an array", lambda: ts.LayerNorm(np.array([8])), "normalized_shape.*array"),
    ("LayerNorm: less than nothing", lambda: ts.LayerNorm(-1), "normalized_shape.*-1"),
    ("GroupNorm: groups", lambda: ts.GroupNorm(2, 3), "2 groups.*3 channels"),
    ("Dropout2d: a share", lambda: tt.Dropout2d(1.5), "between 0 and 1.*1.5"),
    ("framed_digits: out of the frame", lambda: ts.framed_digits(10, right=2), "2.*10 x 10"),
    ("LeNet: images of another size", lambda: ts.LeNet(size=28)(images(2, 1, 16, 16)), r"\(2, 64\).*400"),
]


@pytest.mark.parametrize(("call", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        call()


WIDER = [
    ("batch_norm: running moments", lambda: ts.batch_norm(images(), tt.zeros(3).double(), tt.ones(3).double())),
    ("batch_norm: weight", lambda: ts.batch_norm(images(), None, None, tt.ones(3).double(), training=True)),
    ("layer_norm: weight", lambda: ts.layer_norm(images(), 8, tt.ones(8).double())),
    ("layer_norm of half: bias", lambda: ts.layer_norm(images().to(np.float16), 8, None, tt.ones(8).double())),
    ("group_norm: bias", lambda: ts.group_norm(images(), 3, None, tt.ones(3).double())),
]


@pytest.mark.parametrize("call", [row[1] for row in WIDER], ids=[row[0] for row in WIDER])
def test_parameters_wider_than_the_input_are_refused_in_words(call):
    with pytest.raises(TypeError, match="norm: an input of float(32|16) .* of float64; convert"):
        call()


def test_truth_values_are_not_multiplied():
    series = tt.ones(1, 1, 3) > 0
    for call in (lambda: ts.conv2d(images() > 0, filters() > 0), lambda: ts.conv1d(series, series)):
        with pytest.raises(TypeError, match="truth values.*float"):
            call()


# Every operation on images, for what follows.

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(6, 2, 3, 3))
OPERATIONS = {
    "conv2d": lambda x: ts.conv2d(x, tt.Tensor(WEIGHT).to(x.dtype), stride=(2, 1), padding=1, groups=2),
    "conv_transpose2d": lambda x: ts.conv_transpose2d(x, tt.Tensor(WEIGHT[:4]).to(x.dtype), stride=2, padding=1),
    "max_pool2d": lambda x: ts.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: ts.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: ts.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive_max_pool2d": lambda x: ts.adaptive_max_pool2d(x, (2, 3)),
    "interpolate": lambda x: ts.interpolate(x, (9, 4), mode="bilinear"),
    "pad": lambda x: ts.pad(x, (1, 2, 0, 1), value=1.5),
    "batch_norm": lambda x: ts.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: ts.layer_norm(x, (7, 6)),
    "group_norm": lambda x: ts.group_norm(x, 2),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
IMAGES = RANDOM.normal(size=(3, 4, 7, 6))


def in_memory(order, x):
    """The same numbers, as `order` of the dimensions lies in memory."""
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


@every_operation
def test_the_order_in_memory_does_not_matter(operation):
    def both(x):
        x = tt.from_numpy(x).requires_grad_()
        y = operation(x)
        (share,) = ta.grad((y * y).sum(), x)
        return y.detach().numpy(), share.numpy()

    expected = both(IMAGES)
    wide = np.zeros((3, 8, 7, 12))
    wide[:, ::2, :, ::2] = IMAGES
    read_only = IMAGES.copy()
    read_only.flags.writeable = False
    layouts = [in_memory(order, IMAGES) for order in ((0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 2, 3))]
    for x in (*layouts, wide[:, ::2, :, ::2], IMAGES[:, :, ::-1].copy()[:, :, ::-1], read_only):
        before = x.copy()
        for got, wanted in zip(both(x), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
        assert np.array_equal(x, before)


def test_what_a_convolution_hands_out_lies_with_its_channels_last():
    def lies(x):
        return x.numpy().transpose(0, 2, 3, 1).flags.c_contiguous

    for function in (OPERATIONS["conv2d"], OPERATIONS["max_pool2d"], OPERATIONS["avg_pool2d"]):
        out = function(tt.from_numpy(IMAGES))
        assert lies(out) and lies(ts.batch_norm(out, None, None, training=True))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@every_operation
def test_narrow_numbers_stay_narrow(operation, dtype):
    got = operation(tt.Tensor(IMAGES.astype(dtype)))
    assert got.dtype == dtype
    np.testing.assert_allclose(got.numpy(), operation(tt.Tensor(IMAGES)).numpy(), atol=300 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith("conv") and name != "pad"])
def test_integers_are_taken_for_numbers(name, dtype):
    whole = RANDOM.integers(0, 100, IMAGES.shape)
    got = OPERATIONS[name](tt.from_numpy(whole.astype(dtype))).numpy()
    np.testing.assert_allclose(got, OPERATIONS[name](tt.from_numpy(whole.astype(np.float32))).numpy(), rtol=1e-5)


# Sums are wide enough: ones in float16 stop adding up at 2,048, in float32 at 2^24; and equal numbers have no variance.


def test_sums_of_half_numbers_do_not_stop():
    ones = tt.from_numpy(np.ones((1, 1, 80, 80), np.float16))
    weight = tt.from_numpy(np.ones((1, 1, 1, 1), np.float16)).requires_grad_()
    assert ts.conv2d(ones, ones).item() == 6400
    assert ts.avg_pool2d(ones, 80).item() == ts.adaptive_avg_pool2d(ones, 1).item() == 1
    large = tt.from_numpy(np.full((1, 1, 4, 6), 60_000, np.float16))
    for size in (1, 2, (3, 4)):
        assert (ts.adaptive_avg_pool2d(large, size).numpy() == 60_000).all()
    assert ts.conv_transpose2d(ones, weight.detach(), stride=2)[0, 0, 158, 158].item() == 1
    (of_weight,) = ta.grad(ts.conv2d(ones, weight), weight, ones)
    assert of_weight.item() == 6400
    x = tt.from_numpy(np.zeros((1, 1, 80, 80), np.float16)).requires_grad_()
    g = tt.from_numpy(np.ones((1, 1, 159, 159), np.float16))
    (share,) = ta.grad(ts.conv2d(x, ones, padding=79), x, g)
    assert (share.numpy() == 6400).all()
    image = np.zeros((1, 1, 3, 119), np.float16)
    image[0, 0, 1, 59] = 1
    x = tt.from_numpy(image).requires_grad_()
    out = ts.max_pool2d(x, (3, 60), 1, (1, 0))
    (share,) = ta.grad(out, x, tt.from_numpy(np.full(out.shape, 100, np.float16)))
    assert share[0, 0, 1, 59].item() == 18_000


NORMS = {
    "layer_norm": lambda x: ts.layer_norm(x.reshape(1, x.numel()), x.numel()),
    "layer_norm with weights": lambda x: ts.layer_norm(
        x.reshape(1, x.numel()), x.numel(), *(tt.full((x.numel(),), v, dtype=x.dtype) for v in (1.0, 0.0))
    ),
    "group_norm": lambda x: ts.group_norm(x, 1),
    "batch_norm": lambda x: ts.batch_norm(x, None, None, training=True),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("normalize", NORMS.values(), ids=NORMS)
def test_equal_numbers_are_normalized_to_exactly_0(normalize, dtype):
    for value in (255, 1000.1, 0.1, 1e-4, -300):
        for shape in ((1, 1, 1000), (2, 1, 384), (1, 1, 100_003)):
            for order in ("C", "F"):
                got = normalize(tt.from_numpy(np.full(shape, value, dtype, order))).numpy()
                most = 1e-7 if dtype == np.float64 and value % 1 else 0  # only whole numbers have an exact sum there
                assert np.abs(got).max() <= most, (value, shape)


@pytest.mark.parametrize("normalize", NORMS.values(), ids=NORMS)
def test_large_numbers_are_normalized(normalize):
    for dtype, scale in ((np.float16, 300), (np.float16, 30_000), (np.float32, 1e30)):
        x = (np.array([[[-1, 1, 0.5, -0.5]]]) * scale).astype(dtype)
        with np.errstate(all="raise"):
            got = normalize(tt.from_numpy(x)).numpy().reshape(-1)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, np.array([-1, 1, 0.5, -0.5]) / 0.625**0.5, rtol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("order", ["C", "F"])
def test_moments_of_many_numbers(order):
    many = np.full((1 << 25, 1), 0.1, np.float32, order)
    mean, var = ts.channel_moments(many)
    assert mean[0] == np.float32(0.1) and var[0] == 0
    half = np.array(np.random.default_rng(0).normal(20, 3, (100_000, 2)).astype(np.float16), order=order)
    mean, var = ts.channel_moments(half)
    np.testing.assert_allclose(mean, half.mean(0, np.float64), rtol=1e-12)
    np.testing.assert_allclose(var, half.astype(np.float64).var(0), rtol=1e-9)


def test_running_moments_of_many_half_numbers():
    x = np.random.default_rng(0).normal(20, 300, (100_000, 2)).astype(np.float16)
    layer = ts.BatchNorm1d(2, momentum=None)
    out = layer(tt.from_numpy(x)).numpy()
    assert out.dtype == np.float16 and abs(out.astype(float).std() - 1) < 1e-3
    np.testing.assert_allclose(layer.running_var.numpy(), x.astype(float).var(0, ddof=1), rtol=1e-6)


def test_means_of_integers_are_floats():
    whole = tt.arange(16).reshape(1, 1, 4, 4)
    for got in (ts.avg_pool2d(whole, 2), ts.adaptive_avg_pool2d(whole, 2), ts.interpolate(whole, 2, mode="bilinear")):
        assert got.dtype == np.float32 and got.numpy().reshape(-1).tolist() == [2.5, 4.5, 10.5, 12.5]


def test_a_pixel_of_weight_0_takes_no_part_in_a_mixture():
    x = tt.Tensor([[[[1.0, np.inf, 3.0]]]])
    got = ts.interpolate(x, (1, 5), mode="bilinear", align_corners=True)
    assert got.numpy().reshape(-1).tolist() == [1, np.inf, np.inf, np.inf, 3]


def test_a_dropped_channel_is_0_even_if_it_was_infinite():
    tt.manual_seed(0)
    out = tt.Dropout2d(0.5)(tt.full((1, 40, 2, 2), np.inf)).numpy()
    assert set(np.unique(out)) == {0, np.inf} and (out == out[:, :, :1, :1]).all()


def test_vectors_narrower_than_the_input_are_taken():
    x = tt.Tensor(IMAGES)
    for got in (
        ts.layer_norm(x, 6, tt.ones(6)), ts.group_norm(x, 2, tt.ones(4)), ts.batch_norm(x, tt.zeros(4), tt.ones(4))
    ):  # fmt: skip
        assert got.dtype == np.float64


def test_integers_under_filters():
    whole = tt.tensor(RANDOM.integers(0, 9, (1, 2, 5, 5)).astype(np.uint8))
    got = ts.conv2d(whole, tt.Tensor(WEIGHT.astype(np.float32)))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.numpy(), ts.conv2d(whole.float(), tt.Tensor(WEIGHT.astype(np.float32))).numpy())
    product = ts.conv2d(whole.long(), tt.tensor(np.full((1, 2, 2, 2), 2)))
    assert product.dtype == np.int64 and product[0, 0, 0, 0].item() == 2 * whole[0, :, :2, :2].numpy().sum()


def test_double_and_single_make_double():
    got = ts.conv2d(tt.Tensor(IMAGES[:, :2]), tt.Tensor(WEIGHT.astype(np.float32)), tt.zeros(6))
    assert got.dtype == np.float64
    assert ts.conv_transpose2d(tt.rand(1, 6, 4, 4), tt.Tensor(WEIGHT)).dtype == np.float64


# What is wrong with one image is wrong with it alone, although images share a product.


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "layer_norm", "group_norm"])
def test_nan_stays_in_its_image(name):
    x = IMAGES.copy()
    x[0] = np.nan
    with np.errstate(invalid="ignore"):
        got = OPERATIONS[name](tt.Tensor(x)).numpy()
    assert np.isnan(got[0]).any() and np.array_equal(got[1:], OPERATIONS[name](tt.Tensor(IMAGES)).numpy()[1:])


# One seed fixes everything.


def network():
    return tt.Sequential(
        ts.Conv2d(1, 8, 3, padding=1), ts.BatchNorm2d(8), tt.ReLU(), ts.MaxPool2d(2), tt.Dropout2d(0.3),
        ts.Conv2d(8, 8, 3, stride=2, groups=2), ts.GroupNorm(2, 8), tt.ReLU(), ts.AdaptiveAvgPool2d(2), tt.Flatten(),
        tt.Linear(32, 10),
    )  # fmt: skip


def steps(model, count, size=20):
    x, labels = tt.rand(size, 1, 16, 16), tt.tensor(np.arange(size) % 10)
    optimizer = Adam(model.parameters(), lr=1e-3)
    for _ in range(count):
        optimizer.zero_grad()
        tt.cross_entropy(model(x), labels).backward()
        optimizer.step()


def test_the_same_seed_gives_the_same_bits():
    def trained(seed):
        tt.manual_seed(seed)
        model = network()
        steps(model, 4)
        return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}

    first, again, other = trained(1), trained(1), trained(2)
    assert first == again
    assert {name for name in first if first[name] != other[name]} >= {"0.weight", "5.weight", "1.running_var"}


def test_60_steps_leave_nothing_behind():
    model = network()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        steps(model, 5, size=40)
        settled = tracemalloc.get_traced_memory()[0]
        steps(model, 60, size=40)
        left = tracemalloc.get_traced_memory()[0] - settled
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < 2 * 40 * 8 * 16 * 16 * 4  # twice the first layer's feature maps
