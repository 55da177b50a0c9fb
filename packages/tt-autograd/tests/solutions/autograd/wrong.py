# says: accumulate over all uses


class Walk:
    def arrive(self, tensor, share):
        first = id(tensor) not in self.arrived
        self.arrived[id(tensor)] = share
        if first and type(tensor) is Traced:
            heappush(self.heap, (-tensor._made, tensor))
        elif first:
            self.leaves.append(tensor)
