import tt_tensor as tt
from tt_autograd import Batches, accuracy, fit
from tt_autograd.training import digits
from tt_optim import Adam

tt.manual_seed(1957)
(x, y), (x_new, y_new) = digits()  # handwritten, 8 x 8
model = tt.Sequential(tt.Linear(64, 64), tt.ReLU(), tt.Linear(64, 10))
print(model, "\n")

history = fit(
    model,
    tt.CrossEntropyLoss(),
    Adam(model.parameters(), lr=3e-3),
    Batches(x, y, 32, shuffle=True),
    epochs=20,
    progress=False,
    validation=Batches(x_new, y_new, 359),
    metrics=[accuracy],
)
for epoch in (0, 1, 4, 19):
    right = history["val_accuracy"][epoch]
    print(f"epoch {epoch + 1:2}: {right:.1%} of {len(y_new)} unseen digits right")

image, chances = x_new[4].reshape(8, 8), tt.softmax(model(x_new[4:5]), 1)[0]
print(f"\nthis is a {chances.argmax().item()}, by {chances.max().item():.1%}:")
for row in image.tolist():
    print("   ", "".join(" .:-=+*#%@"[int(9 * ink)] * 2 for ink in row))
