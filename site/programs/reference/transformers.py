import tt_nlp

model = tt_nlp.GPT(tt_nlp.GPTConfig(vocab_size=65, block_size=32, n_layer=2, n_head=2, n_embd=32))
print(sum(p.numel() for p in model.parameters()), "weights")
print(len(tt_nlp.generate(model, [1, 2, 3], max_new_tokens=5, seed=0)))
