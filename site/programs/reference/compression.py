import tt_opt
import tt_tensor as tt

model = tt.Sequential(tt.Linear(256, 256), tt.ReLU(), tt.Linear(256, 10))
masks = tt_opt.prune_(model, 0.9)  # nine of ten weights become 0
print(f"{sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values()):.2f}")
