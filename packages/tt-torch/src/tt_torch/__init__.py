"""PyTorch underneath the course's names: stand-ins for tt_tensor, tt_optim and tt_autograd, to be swapped in.

    TT_SWAP="tt-tensor=tt_torch.tensor,tt-optim=tt_torch.optim,tt-autograd=tt_torch.autograd"

The three are loaded in the place of the packages that they stand in for, and not by their own names."""
