//! Enough of Kubernetes, in one process, to run this repository's workflow for real.
