//! The agent's own state.

use serde::{Deserialize, Serialize};

use crate::model::SocketLb;

/// Answer of `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Node that it serves.
    pub node: String,
    /// Release of the node's kernel.
    #[serde(default)]
    pub kernel: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether every kind has been listed, so that the kernel holds exactly what the API says.
    pub synced: bool,
    /// Generation of the maps that programs read.
    pub generation: u64,
    /// Policy epoch.
    pub epoch: u64,
    /// Seconds since the kernel was last brought in line; `None` before the first time.
    pub last_sync_seconds: Option<f64>,
    /// Why the last attempt failed; `None` if it did not.
    pub last_error: Option<String>,
    /// How programs are attached: tcx or clsact.
    pub attach_mode: String,
    /// Whose sockets are served.
    pub sockets: Sockets,
    /// Pods of the node.
    #[serde(default)]
    pub pods: Pods,
    /// What is watched.
    pub watches: Vec<Watch>,
    /// Devices with programs.
    pub devices: Vec<Device>,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// Flow events that found the ring buffer full, since the maps were made.
    pub events_lost: u64,
    /// The file of flow records; `None` where there is to be none.
    #[serde(default)]
    pub flow_log: Option<FlowLog>,
    /// What the kernel can do.
    pub features: Vec<FeatureState>,
    /// Objects and files that are skipped, and why.
    pub rejections: Vec<Rejection>,
}

/// The file that flow records are written to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowLog {
    /// Its path.
    pub file: String,
    /// Records written since the agent's start.
    pub written: u64,
    /// Records that it could not take, or not fast enough.
    pub lost: u64,
    /// Why it takes none at the moment; `None` if it does.
    pub error: Option<String>,
}

/// Services for sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    /// Whose.
    pub served: SocketLb,
    /// Directory of their cgroup; `None` where nobody's are served.
    pub cgroup: Option<String>,
    /// Whether all programs are attached to it.
    pub attached: bool,
}

/// Pods of the node that have addresses of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// Those that the API has told of.
    pub known: usize,
    /// Networks of pods that a CNI plugin announced: these were under their policies from the first packet.
    pub announced: usize,
    /// Announced ones that the API has not told of. They are cut off until it has.
    pub unknown: usize,
}

/// A watched kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Kind.
    pub kind: String,
    /// Whether it has been listed.
    pub synced: bool,
    /// Objects known.
    pub objects: usize,
}

/// A device with programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Pod that it leads to, if known.
    pub pod: Option<String>,
    /// Whether it leads out of the node: an uplink or a tunnel.
    #[serde(default)]
    pub uplink: bool,
    /// What became of the program in its driver; `None` where it gets none.
    #[serde(default)]
    pub xdp: Option<String>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapFill {
    /// Map.
    pub name: String,
    /// Elements in it.
    pub entries: u64,
    /// Elements that it can hold.
    pub capacity: u64,
}

/// Something that the kernel can or cannot do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureState {
    /// What was tried.
    pub name: String,
    /// Whether it worked.
    pub present: bool,
    /// What Weir does without it.
    pub otherwise: String,
}

/// Answer of `/v1/audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The maps that were compared with what was written to them.
    pub tables: Vec<AuditedTable>,
    /// Questions about policies that were asked of objects and of tables.
    pub questions: usize,
    /// Questions that there are: local pods, directions, and the pieces into which rules cut addresses and ports.
    pub atoms: usize,
    /// What differs, in words; of each kind the first ones.
    pub differences: Vec<String>,
}

/// A map that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditedTable {
    /// Map.
    pub name: String,
    /// Elements that it has; of arrays those that are not all zeros.
    pub elements: usize,
    /// Elements that are not as they should be.
    pub differences: usize,
}

/// An object or file that is skipped, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Kind of the object, or `File`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Flow records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// That are kept.
    pub kept: u64,
    /// That can be kept.
    pub room: u64,
    /// That were made since the agent's start.
    pub ever: u64,
}
