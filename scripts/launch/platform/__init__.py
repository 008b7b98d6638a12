"""The platform, AWS or this machine: clients, models, logs, polling, inventory, prices."""
