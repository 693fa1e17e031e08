//! The names that ingress-nginx gives what it runs, and leads by.

/// Where it lives.
pub const NAMESPACE: &str = "ingress-nginx";
/// Its controller's Deployment.
pub const DEPLOYMENT: &str = "ingress-nginx-controller";
/// What tells the controller's pods from those of the add-on's jobs.
pub const CONTROLLER_PODS: &str = "app.kubernetes.io/component=controller";
/// The leader's lease.
pub const LEASE: &str = "ingress-nginx-leader";
