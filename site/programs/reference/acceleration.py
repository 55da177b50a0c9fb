import tt_opt
import tt_tensor as tt

x = tt.randn(256, 256)
with tt_opt.accelerate("fast"):
    fast = tt.gelu(x)
print((abs(fast - tt.gelu(x)) < 1e-6).all())
