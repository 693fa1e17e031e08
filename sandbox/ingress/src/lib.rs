//! The sandbox's ingress controller: routes by host and path, holds the leader lease, logs as ingress-nginx does.
