"""How far apart domains are: what an encoder sees of it, what a head loses by it, what a tokenizer makes of it."""
