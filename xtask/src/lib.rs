//! The tool behind `cargo xtask`: runs the ResNet-50 API on a Kubernetes cluster of one's own, with readiness
//! gates between the steps. Start reading at [`up`].

pub mod capacity;
pub mod cargo;
pub mod cli;
pub mod clusters;
pub mod commands;
pub mod completions;
pub mod cx;
pub mod doctor;
pub mod down;
pub mod drift;
pub mod explain;
pub mod failure;
pub mod gates;
pub mod image;
pub mod kubeconfig;
pub mod load;
pub mod logs;
pub mod manifests;
pub mod options;
pub mod output;
pub mod owned;
pub mod pipeline;
pub mod plan;
pub mod proc;
pub mod record;
pub mod redeploy;
pub mod report;
pub mod run;
pub mod smoke;
pub mod status;
pub mod steps;
pub mod summary;
pub mod temporary;
pub mod up;
pub mod weights;
