"""Reading a host, live or recorded: the only code that touches /sys, /proc, udev, DM and daemons."""
