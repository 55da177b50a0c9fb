"""The same images as torchvision's and Pillow's; torchvision's part only where it is installed."""

import numpy as np
import pytest

import tt_data as td
import tt_tensor as tt
from tt_data import vision

torch = pytest.importorskip("torch", reason="torch is the oracle here: hatch run parity:run")
try:
    import torchvision
    from torchvision import transforms as theirs
except (ImportError, RuntimeError, OSError) as error:  # a torchvision that was built for another torch
    pytest.skip(f"torchvision is the oracle here: {error}", allow_module_level=True)
Image = pytest.importorskip("PIL.Image")

ours = vision.transforms
F, TF = ours.functional, theirs.functional
SHAPES = [(28, 28), (13, 20), (17, 9, 3), (40, 31, 3)]
PADDINGS = [2, [1, 2], [1, 2, 3, 4]]


@pytest.fixture(params=SHAPES, ids=str)
def picture(request):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, request.param, dtype=np.uint8))


def same(mine, wanted, within=0):
    mine, wanted = np.asarray(mine), np.asarray(wanted)
    assert (mine.shape, mine.dtype) == (wanted.shape, wanted.dtype)
    assert np.abs(mine.astype(np.float64) - wanted.astype(np.float64)).max(initial=0) <= within


def tensors(picture, dtype="float"):
    """One image as a tensor of both libraries."""
    theirs_ = TF.to_tensor(picture) if dtype == "float" else TF.pil_to_tensor(picture)
    return tt.from_numpy(theirs_.numpy()), theirs_


def test_into_tensors(picture):
    same(F.to_tensor(picture), TF.to_tensor(picture))
    same(F.to_tensor(np.array(picture)), TF.to_tensor(np.array(picture)))
    same(F.pil_to_tensor(picture), TF.pil_to_tensor(picture))


@pytest.mark.parametrize("size", [8, 64, [5, 30], [30, 5]], ids=str)
@pytest.mark.parametrize("mode", ["NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC"])
def test_sizes(picture, size, mode):
    mine, wanted = getattr(F.InterpolationMode, mode), getattr(theirs.InterpolationMode, mode)
    if mode != "NEAREST_EXACT":
        same(F.resize(picture, size, mine), TF.resize(picture, size, wanted))
    for dtype, within in (("float", 3e-6), ("bytes", 1)):
        a, b = tensors(picture, dtype)
        same(F.resize(a, size, mine), TF.resize(b, size, wanted), within)
        if mode == "BILINEAR":
            same(F.resize(a, size, mine, antialias=False), TF.resize(b, size, wanted, antialias=False), within)
            same(F.resize(np.asarray(picture), size), TF.resize(picture, size), 1)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_frames(picture, padding, mode):
    same(F.pad(picture, padding, padding_mode=mode), TF.pad(picture, padding, padding_mode=mode))
    a, b = tensors(picture)
    same(F.pad(a, padding, padding_mode=mode), TF.pad(b, padding, padding_mode=mode))
    same(F.pad(picture, padding, 7), TF.pad(picture, padding, 7))
    if len(picture.getbands()) == 3:
        same(F.pad(picture, padding, (7, 8, 9)), TF.pad(picture, padding, (7, 8, 9)))


def test_windows_and_mirrors(picture):
    for mine, wanted in ((picture, picture), tensors(picture)):
        for size in (7, (8, 5), 50, (50, 5)):
            same(F.center_crop(mine, size), TF.center_crop(wanted, size))
        for window in ((2, 3, 5, 4), (-2, 3, 5, 40), (1, -3, 60, 4)):
            same(F.crop(mine, *window), TF.crop(wanted, *window))
        same(F.hflip(mine), TF.hflip(wanted))
        same(F.vflip(mine), TF.vflip(wanted))
        assert F.get_dimensions(mine) == TF.get_dimensions(wanted)
        assert F.get_image_size(mine) == TF.get_image_size(wanted)


def test_grey(picture):
    for channels in (1, 3):
        same(F.rgb_to_grayscale(picture, channels), TF.rgb_to_grayscale(picture, channels))
        for dtype in ("float", "bytes"):
            a, b = tensors(picture, dtype)
            if b.shape[0] == 3:
                same(F.rgb_to_grayscale(a, channels), TF.rgb_to_grayscale(b, channels), 1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16", "int32", "int64"])
def test_dtypes(picture, dtype):
    for start in ("float", "bytes"):
        a, b = tensors(picture, start)
        try:
            wanted = TF.convert_image_dtype(b, getattr(torch, dtype))
        except RuntimeError:
            with pytest.raises(RuntimeError):
                F.convert_image_dtype(a, np.dtype(dtype))
        else:
            same(F.convert_image_dtype(a, np.dtype(dtype)), wanted)


def test_normalize(picture):
    a, b = tensors(picture)
    same(F.normalize(a, [0.1307], [0.3081]), TF.normalize(b, [0.1307], [0.3081]))


def test_transforms_are_made_and_shown_alike():
    def made(kind):
        return [
            kind.Compose([kind.ToTensor(), kind.Normalize((0.1,), (0.2,))]), kind.Resize(3), kind.Resize((3, 4)),
            kind.CenterCrop(3), kind.RandomCrop(3, padding=2), kind.RandomHorizontalFlip(), kind.Grayscale(3),
            kind.RandomVerticalFlip(0.2), kind.Pad(2), kind.PILToTensor(), kind.Lambda(len),
        ]  # fmt: skip

    assert list(map(repr, made(ours))) == list(map(repr, made(theirs)))


@pytest.mark.parametrize("shape", [(5, 3, 7, 6), (5, 1, 7, 6), (1, 3, 4, 4), (3, 4, 5), (4, 5)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"nrow": 2, "padding": 0}, {"normalize": True}, {"normalize": True, "value_range": (-1, 1)},
     {"normalize": True, "scale_each": True, "pad_value": 0.5}],
    ids=str,
)  # fmt: skip
def test_grids_and_files(shape, options, tmp_path):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    same(vision.utils.make_grid(tt.from_numpy(values), **options),
         torchvision.utils.make_grid(torch.tensor(values), **options), 1e-6)  # fmt: skip
    vision.utils.save_image(tt.from_numpy(values), tmp_path / "a.png", **options)
    torchvision.utils.save_image(torch.tensor(values), tmp_path / "b.png", **options)
    same(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.png"), 1)


def test_a_batch_of_noise_has_their_form():
    mine = td.DataLoader(vision.datasets.FakeData(4, (3, 8, 8), transform=ours.ToTensor()), 4)
    wanted = torch.utils.data.DataLoader(torchvision.datasets.FakeData(4, (3, 8, 8), transform=theirs.ToTensor()), 4)
    (images, labels), (others, theirs_) = next(iter(mine)), next(iter(wanted))
    assert images.shape == tuple(others.shape) and str(others.dtype).endswith(str(images.dtype))
    assert labels.shape == tuple(theirs_.shape) and str(theirs_.dtype).endswith(str(labels.dtype))
