import tt_tensor as tt

logits, labels = tt.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), tt.tensor([0, 1])
print(tt.cross_entropy(logits, labels))
print(tt.cross_entropy(logits, labels, reduction="none"))  # the second one was a surprise
