"""Methods beside PyTorch's: values, shapes and dtypes."""

import numpy as np
import pytest

import tt_tensor as tt

torch = pytest.importorskip("torch", reason="PyTorch is not installed here; `hatch run parity:run` has it")

# Each call gets the library T, and x (3, 4) of float32 in (-1, 1), i (3, 4) of int64, m (3, 4) of bool and
# s (3, 3) of float64.

CALLS = """
x.exp2() x.expm1() x.log1p() x.abs().log2() x.abs().log10() x.abs().rsqrt() x.square() x.reciprocal() x.neg()
x.negative() x.sinh() x.cosh() x.tan() x.asin() x.acos() x.atan() x.asinh() x.arctan() x.atan2(x+1) x.deg2rad()
x.sigmoid() x.relu() x.softmax(1) x.softmax(dim=-1) x.log_softmax(0) x.softmax(0,dtype=T.float64) x.trunc() x.fix()
x.frac() x.round(decimals=1) x.add(i) x.add(x,alpha=2) x.sub(1,alpha=3) i.add(i,alpha=2) x.mul(2) i.mul(0.5) x.div(2)
i.div(2) x.div(0.3,rounding_mode="floor") x.div(0.3,rounding_mode="trunc") i.div(2,rounding_mode="floor")
x.true_divide(i+1) x.floor_divide(0.3) x.remainder(0.3) x.fmod(0.3) x.eq(i) x.ne(0) x.lt(0) x.le(x) x.gt(0) x.ge(0)
x.greater(0) i.eq(1) x.logical_and(m) m.logical_not() i.bitwise_and(3) i.bitwise_or(i) i.bitwise_xor(5)
i.bitwise_not() i.bitwise_left_shift(1) m.logical_xor(i) x.where(m,0) x.where(m,x*2) x.lerp(x*2,0.5)
x.addcmul(x,x,value=2) x.isclose(x+1e-9) x.maximum(i*0.1) x.clamp(-0.5,0.5) x.clamp(min=x*0) x.clip(max=0)
x.clamp_min(0) x.clamp_max(0) i.clamp(1,2) x.nan_to_num() x.copysign(i-1) x.hypot(x) x.sum(dtype=T.float64)
x.sum(1,keepdim=True) x.sum((0,1)) i.sum() m.sum() i.prod() x.mean((0,1)) x.mean(1,dtype=T.float64)
x.var(1,unbiased=False) x.std(False) x.var(dim=1,keepdim=True) x.max() x.max(1).values x.max(1).indices x.max(i*0.1)
x.min(dim=0,keepdim=True).values x.amax((0,1)) x.argmax() x.argmax(1,keepdim=True) x.argmin(dim=0) m.any() m.all(1)
x.norm() x.norm(dim=1) x.norm(p=1) x.norm(1,0) x.norm(float("inf")) x.median() x.median(1).values x.median(1).indices
x.kthvalue(2).values x.quantile(0.3) x.quantile(T.tensor([0.2,0.7]),dim=1) x.sort(1).values
x.sort(descending=True).indices x.argsort(0) x.sort(stable=True,dim=0).indices x.topk(2).values
x.topk(2,largest=False).values x.topk(2,0).indices i.unique() i.unique(return_counts=True)[1] x.cumsum(1) x.cumprod(0)
x.cummax(1).values x.cummin(0).indices x.logcumsumexp(1) x.diff() x.diff(dim=0) x.logsumexp(1) x.count_nonzero()
m.count_nonzero(1) x.nansum() i.reshape(-1).bincount() i.reshape(-1).bincount(minlength=9) x.dist(x*2) x.aminmax().max
i.mode(1).values x.histc(4,-1,1) x.gather(1,i) x.take(i) x.select(1,2) x.narrow(1,1,2)
x.index_select(1,T.tensor([0,2])) x.masked_select(m) m.nonzero() m.argwhere() m.nonzero(as_tuple=True)[1]
x.index_add(0,T.tensor([0,0]),x[:2]) x.index_add(0,T.tensor([0,2]),x[:2],alpha=2) x.index_fill(1,T.tensor([1]),7)
x.index_copy(0,T.tensor([2,0]),x[:2]) x.masked_scatter(m,x*10) x.scatter(1,i[:,:2],x) x.scatter(1,i[:,:1],5.0)
x.scatter(1,i[:,:1],value=5.0) x.scatter_add(1,i,x) s.trace() s.diag() x[0].diag() s.diagonal(1) x.diag_embed()
s.tril(-1) s.triu() x.split(2)[1] x.split([1,2])[1] x.split(split_size=2,dim=1)[0] x.chunk(2,1)[1]
x.tensor_split(3,dim=1)[0] x.unbind(1)[2] x.unflatten(1,(2,-1)) x.flip(0) x.flip(0,1) x.flip((1,)) x.flip(dims=[0])
x.fliplr() x.rot90() x.roll(1) x.roll((1,2),(0,1)) x.tile(2) x.tile(2,1) x.tile((2,2)) x.tile(dims=(2,)) x.repeat(2,1)
x.repeat(2,1,1) x.repeat_interleave(2) x.repeat_interleave(2,dim=1) x.swapaxes(0,1) x.swapdims(0,1) x.movedim(0,1)
x.moveaxis(0,-1) x.ravel() x.view_as(x.reshape(4,3)) x.reshape_as(x.reshape(2,6)) x[:1].expand_as(x)
x[:1].broadcast_to((3,4)) x.unfold(1,2,1) x.unfold(0,2,1) x.t() x.T x.mT x.mm(x.t()) x.matmul(x[0]) x.mv(x[0])
x[0].dot(x[1]) x[0].inner(x[1]) x[0].outer(x[1]) x[None].bmm(x.T[None]) s.kron(s) s.addmm(s,s,beta=2)
s[None].baddbmm(s[None],s[None]) s[0].addmv(s,s[1]) x[:,:3].cross(s.float(),dim=1) x.type(T.int64) x.type_as(i)
x.long() x.half() x.int() x.short() i.byte() i.char() m.float() x.double() x.to(T.float64) x.to("cpu") x.to(i)
x.to(x.device,T.float16) x.new_zeros(2) x.new_ones(2,3) i.new_full((2,),3) x.new_tensor([1,2]) i.new_empty(0)
x.contiguous() x.clone() x.data x.detach() x.squeeze() x[:1].squeeze(0) x.unsqueeze(-1) x[None].squeeze((0,1))
x.erfc() x.erfinv() x.abs().lgamma() x.abs().digamma() x.sinc() x.abs().logit() x.xlogy(x.abs()) x.logaddexp(x)
x.heaviside(x) x.signbit() x.isposinf() x.flatten() x.permute(1,0) x.transpose(0,1) x.pow(2) i.pow(2)
x.masked_fill(m,2) x.equal(x) x.allclose(x) x.type() i.type() m.type() x.half().type() x.dim() x.size(0) x.size()
x.stride() x.stride(0) x.T.stride() x.element_size() x.itemsize x.nbytes x.nelement() x.numel() x.ndimension()
x.is_floating_point() i.is_floating_point() x.is_contiguous() x.T.is_contiguous() x.is_signed() x.is_leaf
x.requires_grad x.is_cuda x.grad_fn 0.5 in x 100 in i x.is_same_size(i) str(x.device) x.retains_grad x.add_(1)
x.add_(x,alpha=2) x.sub_(1) x.mul_(x) x.div_(2) i.mul_(2) i.add_(1) x.pow_(2) x.clamp_(0,0.5) x.exp_()
x.abs_().sqrt_() x.neg_() x.round_() x.relu_() x.sigmoid_() x.tanh_() x.masked_fill_(m,9) x.fill_(3) x.zero_()
x.copy_(i) x.copy_(s[0,0],non_blocking=True) x.t_() x.transpose_(0,1) x.unsqueeze_(0) x[None].squeeze_(0)
x.index_fill_(0,T.tensor([1]),2) x.index_add_(0,T.tensor([1,1]),x[:2]*1) x.scatter_(1,i[:,:1],1.0)
x.scatter_add_(1,i,x*1) x.addcmul_(x*1,x*1,value=-1) x.addcdiv_(x*1,x+2,value=0.5) x.lerp_(x*0,0.25) x.lt_(0)
x.fill_diagonal_(5) T.zeros(7,3).fill_diagonal_(5,wrap=True) x.tril_() s.triu_(1) x.cumsum_(1)
s.addmm_(s*1,s*1,alpha=2) m.logical_not_() i.eq_(1)
x.index_put_((T.tensor([0,1]),T.tensor([1,1])),T.tensor([5.0,6.0]))
x.index_put_((T.tensor([0,0]),),x[:2]*1,accumulate=True) x.floor_divide_(0.3)
"""


def calls():
    """The calls of the table: what stands between two blanks, except "in" and its neighbours."""
    return CALLS.replace("0.5 in x", "0.5.__class__(0.5)in(x)").replace("100 in i", "(100)in(i)").split()


def outcome(lib, call):
    rng = np.random.default_rng(3)
    x = lib.from_numpy(rng.uniform(-1, 1, (3, 4)).astype(np.float32))
    names = {"i": rng.integers(0, 4, (3, 4)), "m": rng.random((3, 4)) < 0.5, "s": rng.standard_normal((3, 3))}
    names = {name: lib.from_numpy(array) for name, array in names.items()}
    return eval(call, {"T": lib, "x": x, **names})


@pytest.mark.parametrize("call", calls())
def test_methods_parity(call):
    ours, theirs = outcome(tt, call), outcome(torch, call)
    if not isinstance(theirs, torch.Tensor):
        assert ours == (tuple(theirs) if isinstance(theirs, torch.Size) else theirs)
        return
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    assert ours.shape == tuple(theirs.shape)
    tolerance = {"float16": 1e-2, "float32": 1e-5}.get(str(ours.dtype), 1e-12)
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance / 10)
