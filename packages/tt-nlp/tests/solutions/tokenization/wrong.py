# says: a pair that occurs once was forgotten


class Corpus:
    def merge(self, pair, new):
        left, right = self.replace(pair, new)
        formed = set()
        changes = [((pair[1], y), (new, y), at) for y, at in right.items()]
        changes += [((x, pair[0]), (x, new), at) for x, at in left.items()]
        for gone, pair_formed, at in changes:
            if END not in gone:
                weight = sum(self.weight[place] for place in at)
                self.counts[gone] -= weight
                if weight > 1:
                    self.counts[pair_formed], self.places[pair_formed] = weight, at
                    formed.add(pair_formed)
        self.counts.pop(pair)
        return formed
