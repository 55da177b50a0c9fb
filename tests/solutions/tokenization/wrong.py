# says: Join the bytes of all tokens first


class Vocabulary:
    def decode(self, ids, errors="replace"):
        return "".join(self.decode_bytes([number]).decode("utf-8", errors) for number in ids)
