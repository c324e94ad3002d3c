"""How many replicas: a pure policy and a thin controller over two protocols, the same on every target."""
