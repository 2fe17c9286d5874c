"""What this PC has, and live samples of it."""
