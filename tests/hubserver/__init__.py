"""A Hub on loopback for the tests: what `huggingface_hub` asks of huggingface.co, answered from memory."""
