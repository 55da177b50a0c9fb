import tt_nlp
import tt_opt

model = tt_nlp.GPT(tt_nlp.GPTConfig(vocab_size=65, block_size=64, n_layer=2, n_head=2, n_embd=32))
slow = tt_nlp.generate(model, [1, 2, 3], max_new_tokens=20, temperature=0)
print(tt_opt.generate(model, [1, 2, 3], max_new_tokens=20, temperature=0) == slow)
