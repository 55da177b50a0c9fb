from tt_nlp import BPETokenizer

tokenizer = BPETokenizer.train("low lower lowest, new newer newest " * 20, vocab_size=270)
ids = tokenizer.encode("lowest and newest")
print(ids)
print(tokenizer.decode(ids))
