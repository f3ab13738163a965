//! Weir: Services and NetworkPolicy of a Kubernetes node in eBPF.
//!
//! Data flows one way: [`source`] -> [`state`] -> [`compile`] -> [`plan`] -> [`datapath`]; [`netlink`] tells the state what
//! devices lead where. [`review`], [`flows`], [`metrics`] and [`admin`] read snapshots; [`runtime`] is the one loop that knows them all.

pub mod admin;
pub mod cli;
pub mod cni;
pub mod compile;
pub mod config;
pub mod datapath;
pub mod doctor;
pub mod explain;
pub mod flows;
pub mod hubble;
pub mod metrics;
pub mod model;
pub mod netlink;
pub mod plan;
pub mod review;
pub mod runtime;
pub mod source;
pub mod state;
pub mod takeover;
