"""The recipe needs PyTorch and the rest of the repository; its modules hold no doctests."""

collect_ignore = ["training"]
