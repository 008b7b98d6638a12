"""AWS's built-in rules on saved tensors, with AWS's names, parameters and defaults, as rules of smdebug."""
