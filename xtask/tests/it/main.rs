//! The tool from the outside: the built binary, real processes, real sockets.

mod arguments;
mod bad_input;
mod build;
mod declared;
mod declared_reading;
mod doctor;
mod faults;
mod interrupt;
mod json;
mod load;
mod load_during;
mod load_ends;
mod load_explain;
mod load_replay;
mod load_report;
mod load_without;
mod logs;
mod minikube;
mod minikube_profile;
mod planned;
mod sandbox;
mod streams;
mod test_runs;
mod tidy;
mod world;
