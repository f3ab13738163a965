//! Where the objects come from: a directory of manifests or the Kubernetes API. Both speak [`Event`](crate::model::Event)s,
//! and both convert API objects to model objects once, in [`convert`].

pub mod convert;
pub mod kube;
pub mod manifests;
mod outcome;
pub mod policy_api;
mod rejection;

pub use rejection::{Fault, Problem, Rejection};
