"""A real Kubernetes control plane, and on a bare Linux machine a real node, from processes of this machine."""
