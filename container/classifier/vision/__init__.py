"""Bytes → RGB → pixels → logits → label: what training and serving share."""
