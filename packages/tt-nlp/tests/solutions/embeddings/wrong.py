# says: add up
def add_rows(ids, g, /, rows):
    table = np.zeros((rows, g.shape[-1]), g.dtype)
    table[ids] += g
    return table
