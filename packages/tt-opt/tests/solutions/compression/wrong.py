# says: An output has a bias, too


def without_(layer, gone, dim):
    for name in ("weight", "running_mean", "running_var"):
        tensor = getattr(layer, name, None)
        if tensor is not None and tensor.ndim > dim:
            rest = from_numpy(np.delete(tensor.detach().numpy(), gone, dim))
            if name == "weight":
                layer.weight = Parameter(rest)
            else:
                layer.register_buffer(name, rest)
    size = next(names[dim] for kind, names in SIZES.items() if isinstance(layer, kind))
    setattr(layer, size, getattr(layer, size) - len(gone))
