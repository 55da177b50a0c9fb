# says: Take the ratio in each **pair** first


def compared(times, names=("a", "b")):
    a, b = np.median(times, axis=0)
    return Comparison(float(b / a), *median_interval(times[:, 1] / times[:, 0]), names)
