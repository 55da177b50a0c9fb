from tt_tensor import generator, manual_seed, median_time

manual_seed(7)
first = generator().integers(100, size=3)
manual_seed(7)
print(first, generator().integers(100, size=3))  # the same state, the same numbers
print(median_time(lambda: sum(range(1000))) < 1)  # in seconds
