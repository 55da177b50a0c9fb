# says: Both epochs have the same order


class RandomSampler:
    def __iter__(self):
        if not hasattr(self, "order"):
            self.order = chance(self.generator).permutation(len(self.data_source))[: self.num_samples].tolist()
        return iter(self.order)
