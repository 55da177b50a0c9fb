import numpy as np

import tt_opt

x = np.ones(100_000)
verdict = tt_opt.compare(lambda: x.sum(), lambda: sum(x), pairs=10, span=0.2, names=("numpy", "python"))
print(verdict.low > 1)  # NumPy is faster: the whole interval of the ratio is above 1
