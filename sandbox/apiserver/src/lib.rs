//! The sandbox's API server: Kubernetes' REST API for the kinds this repository uses.
