"""One training job: project, log, result. A process on this machine, or a Job on Kubernetes. No scheduler."""
