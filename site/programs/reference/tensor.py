import tt_tensor as tt

x = tt.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
print(x.shape, x.dtype)
print(x.T @ x)
print((x - x.mean(0)).sum())  # (2, 3) minus (3,): broadcasting
