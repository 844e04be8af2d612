"""What must hold when things go wrong: each property with a fault that is injected for real."""
