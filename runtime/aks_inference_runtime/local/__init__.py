"""The runtime on this machine: a supervisor, processes in place of pods."""
