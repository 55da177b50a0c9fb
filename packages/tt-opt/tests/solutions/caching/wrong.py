# says: must see the **whole cache**


def look_back(q, keys, values, /, window=None):
    T, H, D = q.shape
    n, G, _ = keys.shape
    grouped = q.swapaxes(0, 1).reshape(G, H // G * T, D)
    scores = (grouped @ keys.transpose(1, 2, 0) / np.sqrt(D)).reshape(H, T, n)
    scores = np.where(np.tri(T, n, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights.reshape(G, -1, n) @ values.swapaxes(0, 1)).reshape(H, T, D).swapaxes(0, 1)
