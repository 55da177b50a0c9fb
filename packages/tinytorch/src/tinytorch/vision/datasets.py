"""torchvision.datasets: pictures with labels, from $TT_DATA or the folder that is given."""

from tt_data.vision_datasets import CIFAR10, FakeData, FashionMNIST, ImageFolder, MNIST, VisionDataset

from tinytorch._vision import offer as _offer

__getattr__, __dir__ = _offer(__name__)
