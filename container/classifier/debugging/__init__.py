"""What a network's tensors say: a hook that saves them, and rules that read them."""
