"""How the demo model is made: data, tokenizer, training, export and the card, in this order."""
