# says: The gradients of step 2 contain those of step 1: call zero_grad


def _step(model, loss_fn, optimizer, group, clip_norm, metrics, averages):
    for inputs, targets in group:
        outputs = model(inputs)
        loss = loss_fn(outputs, targets)
        loss.backward()
        averages.add(_measured(loss, outputs, targets, metrics), len(targets))
    if clip_norm is not None:
        clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
