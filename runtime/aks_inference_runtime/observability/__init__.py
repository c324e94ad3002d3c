"""What goes on, told to others, on clusters and on this machine: metrics by their stable names, changed states."""
