# says: Half of the sum is gone: scale the survivors by 1/(1-p)


def dropout(x, p=0.5, training=True):
    if not 0 <= p <= 1:
        raise ValueError(f"p lies between 0 and 1; it is {p}")
    if not training:
        return x
    keep = generator().random(x.shape) >= p
    return x * from_numpy(np.asarray(keep, x.dtype))
