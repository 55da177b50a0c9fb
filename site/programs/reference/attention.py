import tt_tensor as tt
from tt_nlp import causal_mask, scaled_dot_product_attention

q, k, v = tt.randn(2, 5, 8), tt.randn(2, 5, 8), tt.randn(2, 5, 8)
print(causal_mask(4))
print(scaled_dot_product_attention(q, k, v, is_causal=True).shape)
