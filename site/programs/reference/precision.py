import tt_opt
import tt_tensor as tt

model = tt.Sequential(tt.Linear(256, 256), tt.ReLU(), tt.Linear(256, 10))
before = tt_opt.model_bytes(model)
tt_opt.quantize_(model, "int8")
print(before, tt_opt.model_bytes(model))
