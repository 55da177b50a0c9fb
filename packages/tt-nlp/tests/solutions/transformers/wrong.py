# says: residual path is cut
class Block:
    def forward(self, x):
        x = self.attn(self.ln_1(x))
        return self.mlp(self.ln_2(x))
