"""A program as its user types it, for the type checkers: see test_stubs.py. It runs, too."""

import tinytorch as torch
import tinytorch.nn as nn
import tinytorch.nn.functional as F
from tinytorch import optim
from tinytorch.optim.lr_scheduler import StepLR
from tinytorch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.first(x), inplace=True)


torch.manual_seed(3)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
net = Net().to(device)
optimizer = optim.Adam(net.parameters(), lr=1e-3)
scheduler = StepLR(optimizer, step_size=3)
data = DataLoader(TensorDataset(torch.randn(8, 2), torch.zeros(8, dtype=torch.long)), batch_size=4, shuffle=True)
for x, y in data:
    loss = F.cross_entropy(input=net(x), target=y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
scheduler.step()
total: torch.Tensor = torch.ones(2, 3).sum(dim=1)
with torch.no_grad():
    values, indices = torch.max(nn.Linear(2, 3)(torch.ones(4, 2)), dim=1)
