"""The platform, AWS or local: clients, logs, polling, inventory, prices."""
