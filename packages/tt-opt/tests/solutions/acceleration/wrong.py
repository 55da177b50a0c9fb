# says: It can be picked up once: forget it.


def picked_up(out):
    return _left.back if _left.out is not None and _left.out() is out else None
