import tt_autograd
import tt_tensor as tt

x = tt.tensor([1.0, 2.0, 3.0], requires_grad=True)
(x**3).sum().backward()
print(x.grad)  # 3 x^2
print(tt_autograd.check_gradients(lambda x: tt.softmax(x, 0) * x, tt.randn(4, dtype=tt.float64, requires_grad=True)))
