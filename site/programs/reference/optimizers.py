import tt_optim
import tt_tensor as tt

w = tt.Parameter(tt.tensor([3.0, -2.0]))
optimizer = tt_optim.SGD([w], lr=0.1, momentum=0.9)
for _ in range(200):
    w.grad = 2 * w.detach()  # the gradient of (w**2).sum(), by hand
    optimizer.step()
print(bool((abs(w.detach()) < 1e-3).all()))
