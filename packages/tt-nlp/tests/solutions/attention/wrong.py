# says: before the softmax
def attention_weights(query, key, mask=None, scale=None):
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    weights = tt.softmax(scores, dim=-1)
    return weights if mask is None else weights * tt.exp(as_added(mask, weights.dtype))
