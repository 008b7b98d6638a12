"""Where the time goes: samples of the machine and of the steps, and rules that read them."""
