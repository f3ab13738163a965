//! The objects that Weir acts upon, as plain data: no kube types, defaults applied, families apart, bad values gone.

mod attach;
mod cluster_policy;
mod connection;
mod event;
mod link;
mod location;
mod name;
mod node_ports;
mod owners;
mod policy;
mod request;
mod sandbox;
mod selector;
mod service;
mod snapshot;
mod socket_lb;
mod workload;
mod xdp;

pub use attach::AttachMode;
pub use cluster_policy::{Action, ClusterPolicy, ClusterRule, Tier};
pub use connection::{Connection, Ends};
pub use event::{Change, Event, Kind, Object};
pub use link::{DeviceFacts, NetDevice, PodDevice};
pub use location::Location;
pub use name::{ObjectName, endpoint_id, fingerprint, rule_id, service_port_id};
pub use node_ports::{NodePorts, is_link_local_v6};
pub use owners::AddressOwners;
pub use policy::{Direction, Peer, Policy, PolicyPort, PortMatch, Rule};
pub use request::Request;
pub use sandbox::{Attachment, Sandbox};
pub use selector::{Labels, Operator, Requirement, Selector, SelectorError};
pub use service::{
    Endpoint, EndpointSlice, ForeignService, Hints, Protocol, Service, ServiceCidr, ServicePort,
    SlicePort, TrafficPolicy, Trigger, UnknownProtocol,
};
pub use snapshot::Snapshot;
pub use socket_lb::SocketLb;
pub use workload::{ContainerPort, Namespace, Node, Pod, workload_kind};
pub use xdp::XdpMode;

#[cfg(test)]
mod tests;
