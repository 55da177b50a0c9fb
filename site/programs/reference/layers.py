import tt_tensor as tt

model = tt.Sequential(tt.Linear(64, 32), tt.ReLU(), tt.Linear(32, 10))
print(model)
print([(name, p.shape) for name, p in model.named_parameters()])
