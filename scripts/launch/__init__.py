"""What the commands share: requests, clients, and the platform's folders on this machine."""
