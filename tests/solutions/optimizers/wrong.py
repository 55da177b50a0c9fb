# says: the bias correction, m / (1 - beta1^t) and v / (1 - beta2^t), is missing


class Adam:
    def update(self, p, g, grad_sum, square_sum, scratch, t, lr, betas, eps, decay):
        beta1, beta2 = betas
        if self.decoupled:
            p *= 1 - lr * decay
        else:
            g = g + decay * p
        grad_sum *= beta1
        grad_sum += (1 - beta1) * g
        square_sum *= beta2
        square_sum += (1 - beta2) * g**2
        p -= lr * grad_sum / (np.sqrt(square_sum) + eps)
