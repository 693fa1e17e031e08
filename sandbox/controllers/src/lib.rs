//! The sandbox's controllers: scheduler, Deployment, ReplicaSet, EndpointSlice, autoscaler, garbage collection.
