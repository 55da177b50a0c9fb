# Written by tools/stubs.py.
# mypy: disable-error-code="overload-cannot-match, overload-overlap, misc"
import builtins
from typing import Any, overload

from tt_tensor import Tensor as Tensor

from tt_nlp import (
    GRU as GRU,
    GRUCell as GRUCell,
    LSTM as LSTM,
    LSTMCell as LSTMCell,
    MultiheadAttention as MultiheadAttention,
    RNN as RNN,
    RNNBase as RNNBase,
    RNNCell as RNNCell,
    RNNCellBase as RNNCellBase,
)
from tt_nlp.more_embeddings import (
    Embedding as Embedding,
    EmbeddingBag as EmbeddingBag,
)
from tt_nlp.torch_transformer import (
    Transformer as Transformer,
    TransformerDecoder as TransformerDecoder,
    TransformerDecoderLayer as TransformerDecoderLayer,
    TransformerEncoder as TransformerEncoder,
    TransformerEncoderLayer as TransformerEncoderLayer,
)
from tt_spatial import (
    AdaptiveAvgPool1d as AdaptiveAvgPool1d,
    AdaptiveAvgPool2d as AdaptiveAvgPool2d,
    AdaptiveMaxPool1d as AdaptiveMaxPool1d,
    AdaptiveMaxPool2d as AdaptiveMaxPool2d,
    AvgPool1d as AvgPool1d,
    AvgPool2d as AvgPool2d,
    BatchNorm1d as BatchNorm1d,
    BatchNorm2d as BatchNorm2d,
    BatchNorm3d as BatchNorm3d,
    ChannelShuffle as ChannelShuffle,
    CircularPad1d as CircularPad1d,
    CircularPad2d as CircularPad2d,
    CircularPad3d as CircularPad3d,
    ConstantPad1d as ConstantPad1d,
    ConstantPad2d as ConstantPad2d,
    ConstantPad3d as ConstantPad3d,
    Conv1d as Conv1d,
    Conv2d as Conv2d,
    ConvTranspose1d as ConvTranspose1d,
    ConvTranspose2d as ConvTranspose2d,
    Fold as Fold,
    GroupNorm as GroupNorm,
    InstanceNorm1d as InstanceNorm1d,
    InstanceNorm2d as InstanceNorm2d,
    InstanceNorm3d as InstanceNorm3d,
    LayerNorm as LayerNorm,
    LazyBatchNorm1d as LazyBatchNorm1d,
    LazyBatchNorm2d as LazyBatchNorm2d,
    LazyBatchNorm3d as LazyBatchNorm3d,
    LazyConv1d as LazyConv1d,
    LazyConv2d as LazyConv2d,
    LazyConvTranspose1d as LazyConvTranspose1d,
    LazyConvTranspose2d as LazyConvTranspose2d,
    LazyInstanceNorm1d as LazyInstanceNorm1d,
    LazyInstanceNorm2d as LazyInstanceNorm2d,
    LazyInstanceNorm3d as LazyInstanceNorm3d,
    LocalResponseNorm as LocalResponseNorm,
    MaxPool1d as MaxPool1d,
    MaxPool2d as MaxPool2d,
    MaxUnpool1d as MaxUnpool1d,
    MaxUnpool2d as MaxUnpool2d,
    PixelShuffle as PixelShuffle,
    PixelUnshuffle as PixelUnshuffle,
    RMSNorm as RMSNorm,
    ReflectionPad1d as ReflectionPad1d,
    ReflectionPad2d as ReflectionPad2d,
    ReflectionPad3d as ReflectionPad3d,
    ReplicationPad1d as ReplicationPad1d,
    ReplicationPad2d as ReplicationPad2d,
    ReplicationPad3d as ReplicationPad3d,
    Unfold as Unfold,
    Upsample as Upsample,
    UpsamplingBilinear2d as UpsamplingBilinear2d,
    UpsamplingNearest2d as UpsamplingNearest2d,
    ZeroPad1d as ZeroPad1d,
    ZeroPad2d as ZeroPad2d,
    ZeroPad3d as ZeroPad3d,
)
from tt_tensor import (
    AlphaDropout as AlphaDropout,
    BCELoss as BCELoss,
    BCEWithLogitsLoss as BCEWithLogitsLoss,
    Bilinear as Bilinear,
    CELU as CELU,
    CosineEmbeddingLoss as CosineEmbeddingLoss,
    CosineSimilarity as CosineSimilarity,
    CrossEntropyLoss as CrossEntropyLoss,
    Dropout as Dropout,
    Dropout1d as Dropout1d,
    Dropout2d as Dropout2d,
    Dropout3d as Dropout3d,
    ELU as ELU,
    Flatten as Flatten,
    GELU as GELU,
    GLU as GLU,
    GaussianNLLLoss as GaussianNLLLoss,
    Hardshrink as Hardshrink,
    Hardsigmoid as Hardsigmoid,
    Hardswish as Hardswish,
    Hardtanh as Hardtanh,
    HingeEmbeddingLoss as HingeEmbeddingLoss,
    HuberLoss as HuberLoss,
    Identity as Identity,
    KLDivLoss as KLDivLoss,
    L1Loss as L1Loss,
    LazyLinear as LazyLinear,
    LeakyReLU as LeakyReLU,
    Linear as Linear,
    LogSigmoid as LogSigmoid,
    LogSoftmax as LogSoftmax,
    MSELoss as MSELoss,
    MarginRankingLoss as MarginRankingLoss,
    Mish as Mish,
    Module as Module,
    ModuleDict as ModuleDict,
    ModuleList as ModuleList,
    MultiLabelMarginLoss as MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss as MultiLabelSoftMarginLoss,
    MultiMarginLoss as MultiMarginLoss,
    NLLLoss as NLLLoss,
    PReLU as PReLU,
    PairwiseDistance as PairwiseDistance,
    ParameterDict as ParameterDict,
    ParameterList as ParameterList,
    PoissonNLLLoss as PoissonNLLLoss,
    RReLU as RReLU,
    ReLU as ReLU,
    ReLU6 as ReLU6,
    SELU as SELU,
    Sequential as Sequential,
    SiLU as SiLU,
    Sigmoid as Sigmoid,
    SmoothL1Loss as SmoothL1Loss,
    SoftMarginLoss as SoftMarginLoss,
    Softmax as Softmax,
    Softmax2d as Softmax2d,
    Softmin as Softmin,
    Softplus as Softplus,
    Softshrink as Softshrink,
    Softsign as Softsign,
    Tanh as Tanh,
    Tanhshrink as Tanhshrink,
    Threshold as Threshold,
    TripletMarginLoss as TripletMarginLoss,
    Unflatten as Unflatten,
)

activation: Any
adaptive: Any
batchnorm: Any
channelshuffle: Any
container: Any
conv: Any
distance: Any
dropout: Any
flatten: Any
fold: Any
instancenorm: Any
lazy: Any
linear: Any
loss: Any
module: Any
normalization: Any
padding: Any
pixelshuffle: Any
pooling: Any
rnn: Any
sparse: Any
transformer: Any
upsampling: Any
