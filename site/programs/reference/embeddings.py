import tt_tensor as tt
from tt_nlp import Embedding

table = Embedding(10, 4)
print(table(tt.tensor([[1, 2, 1]])).shape)  # a vector for each id
