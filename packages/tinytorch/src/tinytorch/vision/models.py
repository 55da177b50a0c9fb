"""torchvision.models: what it names, refused when it is called. Programs that only import from it run."""

from typing import Any as _Any

from tinytorch._vision import offer as _offer

__getattr__, __dir__ = _offer(__name__)

_NETWORKS = """
AlexNet ConvNeXt DenseNet EfficientNet GoogLeNet Inception3 MNASNet MaxVit MobileNetV2 MobileNetV3 RegNet ResNet
ShuffleNetV2 SqueezeNet SwinTransformer VGG VisionTransformer
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169 densenet201
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf regnet_x_1_6gf
regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_1_6gf
regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50
resnext101_32x8d resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13
vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
get_model get_model_builder get_model_weights get_weight list_models detection optical_flow quantization segmentation
video
""".split()

_WEIGHTS = """
AlexNet ConvNeXt_Base ConvNeXt_Large ConvNeXt_Small ConvNeXt_Tiny DenseNet121 DenseNet161 DenseNet169 DenseNet201
EfficientNet_B0 EfficientNet_B1 EfficientNet_B2 EfficientNet_B3 EfficientNet_B4 EfficientNet_B5 EfficientNet_B6
EfficientNet_B7 EfficientNet_V2_L EfficientNet_V2_M EfficientNet_V2_S GoogLeNet Inception_V3 MaxVit_T MNASNet0_5
MNASNet0_75 MNASNet1_0 MNASNet1_3 MobileNet_V2 MobileNet_V3_Large MobileNet_V3_Small RegNet_X_16GF RegNet_X_1_6GF
RegNet_X_32GF RegNet_X_3_2GF RegNet_X_400MF RegNet_X_800MF RegNet_X_8GF RegNet_Y_128GF RegNet_Y_16GF RegNet_Y_1_6GF
RegNet_Y_32GF RegNet_Y_3_2GF RegNet_Y_400MF RegNet_Y_800MF RegNet_Y_8GF ResNet101 ResNet152 ResNet18 ResNet34 ResNet50
ResNeXt101_32X8D ResNeXt101_64X4D ResNeXt50_32X4D ShuffleNet_V2_X0_5 ShuffleNet_V2_X1_0 ShuffleNet_V2_X1_5
ShuffleNet_V2_X2_0 SqueezeNet1_0 SqueezeNet1_1 Swin_B Swin_S Swin_T Swin_V2_B Swin_V2_S Swin_V2_T VGG11 VGG11_BN VGG13
VGG13_BN VGG16 VGG16_BN VGG19 VGG19_BN ViT_B_16 ViT_B_32 ViT_H_14 ViT_L_16 ViT_L_32 Wide_ResNet101_2 Wide_ResNet50_2
""".split()


class _Refused(type):
    """A class whose call is refused. Its attributes, such as DEFAULT, are the class itself."""

    def __getattr__(cls, name: str) -> _Any:
        if name[:2] == "__":
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}", name=name)
        return cls

    def __call__(cls, *args: _Any, **options: _Any) -> _Any:
        raise RuntimeError(
            f"torchvision.models.{cls.__name__} is not available: pretrained networks and torchvision's models are not "
            "here; build the network from nn.Conv2d, nn.BatchNorm2d, ... and load_state_dict() weights of plain tensors"
        )


for _name in (*_NETWORKS, "WeightsEnum", "Weights", *(f"{_network}_Weights" for _network in _WEIGHTS)):
    globals()[_name] = _Refused(_name, (), {"__module__": __name__, "__doc__": "Not available."})
