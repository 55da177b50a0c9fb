import tt_spatial
import tt_tensor as tt

images = tt.rand(8, 1, 28, 28)
conv = tt_spatial.Conv2d(1, 6, kernel_size=5, padding=2)
print(conv, conv(images).shape)
print(tt_spatial.max_pool2d(conv(images), 2).shape)
