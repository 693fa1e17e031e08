//! The sandbox's node agent: a pod's container is a process, with probes, restarts, limits and logs.
