from tt_capstone import SMOLLM2, llama_parameters

print(SMOLLM2)
print(f"{llama_parameters(SMOLLM2):,} weights")
