# says: Both epochs have the same order


class RandomSampler:
    def permutations(self):
        if not hasattr(self, "order"):
            self.order = resolve_generator(self.generator).permutation(len(self.data_source)).tolist()
        for number in range(self.num_samples):
            yield self.order[number % len(self.order)]
