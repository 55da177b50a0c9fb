import tt_tensor as tt
from tt_autograd import Batches, accuracy, fit
from tt_autograd.training import digits
from tt_optim import Adam

(x, y), (x_new, y_new) = digits()
model = tt.Sequential(tt.Linear(64, 32), tt.ReLU(), tt.Linear(32, 10))
history = fit(
    model,
    tt.CrossEntropyLoss(),
    Adam(model.parameters(), lr=3e-3),
    Batches(x, y, 32, shuffle=True),
    epochs=5,
    validation=Batches(x_new, y_new, 359),
    metrics=[accuracy],
    progress=False,
)
print([f"{share:.1%}" for share in history["val_accuracy"]])
