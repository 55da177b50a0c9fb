# says: the bias correction, m / (1 - beta1^t) and v / (1 - beta2^t), is missing


def adam_update(p, g, m, v, *, t, lr, betas, eps, decay, decoupled):
    beta1, beta2 = betas
    if decoupled:
        p *= 1 - lr * decay
    else:
        g = g + decay * p
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g**2
    p -= lr * m / (np.sqrt(v) + eps)
