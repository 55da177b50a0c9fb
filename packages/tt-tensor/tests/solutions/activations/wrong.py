# says: exp(1000) is an overflow: subtract the maximum first


def softmax(x, /, dim):
    e = np.exp(as_floats(x))
    return e / e.sum(axis=dim, keepdims=True)
