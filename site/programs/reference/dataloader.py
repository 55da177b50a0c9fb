import tt_tensor as tt
from tt_data import DataLoader, TensorDataset

data = TensorDataset(tt.rand(100, 3), tt.tensor(range(100)))
for x, y in DataLoader(data, batch_size=40, shuffle=True):
    print(x.shape, y.shape)
