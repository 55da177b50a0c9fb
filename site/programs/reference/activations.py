import tt_tensor as tt

x = tt.tensor([-2.0, 0.0, 1000.0])
print(tt.relu(x))
print(tt.softmax(x, 0))  # no overflow
