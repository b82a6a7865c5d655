"""Changes a host: checks, locks, plans as they are carried out, and definitions that outlast them."""
