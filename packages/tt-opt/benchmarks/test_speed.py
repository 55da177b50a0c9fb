"""Speed itself: training on each kernel set, a cache, batches of texts, and products with packed matrices."""

import numpy as np
import pytest

import tt_nlp as tn
import tt_opt
import tt_tensor as tt
from tt_autograd import no_grad
from tt_optim import AdamW

pytestmark = pytest.mark.benchmark(group="tt-opt")

ERROR = {"int8": 0.01, "q4_1": 0.1}  # of a product with a packed matrix, as a share of its norm


@pytest.fixture(autouse=True)
def same_numbers():
    tt.manual_seed(0)


@pytest.fixture(params=["fast", "compiled"])
def kernels(request):
    """The benchmark runs on this kernel set."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the compiled kernel set needs Numba: pip install 'tt-opt[compiled]'")
    with tt_opt.accelerate(request.param):
        yield request.param


def gpt():
    return tn.GPT(tn.GPTConfig(vocab_size=64, block_size=64, n_layer=2, n_head=4, n_embd=64))


def test_training_step_of_a_gpt_2_blocks_width_64(benchmark, kernels):
    model, ids = gpt(), tt.randint(0, 64, (8, 65))
    optimizer = AdamW(model.parameters(), lr=1e-5)

    def step():
        loss = tn.next_token_loss(model(ids[:, :-1]), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = step()
    assert first == pytest.approx(np.log(64), abs=0.1) and benchmark(step) < first


def test_16_tokens_with_a_cache(benchmark):
    model, prompt = gpt().eval(), list(range(32))
    written = benchmark(tt_opt.generate, model, prompt, 16, temperature=0)
    assert written == tn.generate(model, prompt, 16, temperature=0)


def test_16_tokens_of_each_of_8_texts(benchmark):
    model, prompts = gpt().eval(), [list(range(start, start + 32)) for start in range(8)]
    written = benchmark(tt_opt.generate, model, prompts, 16, temperature=0)
    assert written[3] == tn.generate(model, prompts[3], 16, temperature=0)


@pytest.mark.parametrize("kind", ERROR)
def test_product_of_a_packed_512x512_matrix_and_a_vector(benchmark, kernels, kind):
    layer, x = tt.Linear(512, 512, bias=False), tt.randn(1, 512)
    wanted = x.numpy() @ layer.weight.numpy().T
    packed = tt_opt.quantize_(tt.Sequential(layer), kind)
    with no_grad():
        found = benchmark(packed, x).numpy()
    assert np.linalg.norm(found - wanted) < ERROR[kind] * np.linalg.norm(wanted)


def test_pack_a_512x512_matrix_as_q4_1(benchmark):
    layer = tt.Linear(512, 512)
    packed = benchmark(lambda: tt_opt.quantize_(tt.Sequential(layer), "q4_1"))
    assert tt_opt.model_bytes(packed) < tt_opt.model_bytes(tt.Sequential(layer)) / 6
