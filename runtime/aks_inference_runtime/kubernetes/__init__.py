"""The runtime in a cluster: routers, autoscaler and gates as pods. Everything is found through the API server."""
