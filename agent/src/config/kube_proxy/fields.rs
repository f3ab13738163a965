//! Every field of a KubeProxyConfiguration, and what becomes of it.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::Given;
use super::form::Form;
use Form::{
    Boolean, Booleans, Duration, DurationOrNanoseconds, Integer, Number, Quantity, Text, Texts,
    Verbosities,
};

/// A field.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Field {
    /// Names from the document down.
    pub path: &'static str,
    form: Form,
    /// Values that kube-proxy takes for not set, and its default.
    unset: &'static [&'static str],
    /// What becomes of it.
    pub fate: Fate,
}

/// The value for Weir's option, or why the field has no effect.
type How = fn(&Given) -> Result<Value, &'static str>;

/// What becomes of a field that is set.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) enum Fate {
    /// It sets an option, named by its field, to a value that may hang on other fields.
    Sets { option: &'static str, how: How },
    /// It has no effect, and why.
    Ignored(&'static str),
}

impl Field {
    /// Whether a value is another one than the default.
    ///
    /// # Errors
    /// What is expected, if the value is of another type.
    pub(super) fn is_set(&self, value: &Value) -> Result<bool, &'static str> {
        let given = self.form.canonical(value)?;
        let is = |unset: &&str| given.as_ref() == Some(&self.form.canonical_text(unset));
        Ok(given.is_some() && !self.unset.iter().any(is))
    }
}

const fn sets(
    path: &'static str,
    form: Form,
    unset: &'static [&'static str],
    option: &'static str,
    how: How,
) -> Field {
    let fate = Fate::Sets { option, how };
    Field {
        path,
        form,
        unset,
        fate,
    }
}

const fn ignored(
    path: &'static str,
    form: Form,
    unset: &'static [&'static str],
    reason: &'static str,
) -> Field {
    let fate = Fate::Ignored(reason);
    Field {
        path,
        form,
        unset,
        fate,
    }
}

const EMPTY: &[&str] = &[""];
const FALSE: &[&str] = &["false"];
const NEVER: &[&str] = &["0s"];
const EVERY_30_S: &[&str] = &["0s", "30s"];
const EVERY_1_S: &[&str] = &["0s", "1s"];

const CLIENT: &str = "the watches of Weir have their own pace and encoding";
const IPTABLES: &str = "Weir uses no iptables";
const IPVS: &str = "Weir uses no IPVS";
const NFTABLES: &str = "Weir uses no nftables";
const WINDOWS: &str = "Weir runs on Linux";
const MASQUERADE: &str =
    "Weir keeps a client's address wherever the replies come back to the node anyway";
const LOCAL: &str = "Weir knows pods by the addresses in the API";
const TIMEOUT: &str = "the timeouts of Weir's own connection tracking are fixed";
const LOG: &str = "log lines are written to standard error at once";

pub(in crate::config) const FIELDS: &[Field] = &[
    ignored(
        "featureGates",
        Booleans,
        EMPTY,
        "the gates are kube-proxy's own",
    ),
    sets(
        "clientConnection.kubeconfig",
        Text,
        EMPTY,
        "kubeconfig",
        |given| Ok(given["clientConnection.kubeconfig"].clone()),
    ),
    ignored("clientConnection.acceptContentTypes", Text, EMPTY, CLIENT),
    ignored(
        "clientConnection.contentType",
        Text,
        &["", "application/vnd.kubernetes.protobuf"],
        CLIENT,
    ),
    ignored("clientConnection.qps", Number, &["0", "5"], CLIENT),
    ignored("clientConnection.burst", Integer, &["0", "10"], CLIENT),
    sets("logging.format", Text, EMPTY, "log_format", |given| {
        Ok(given["logging.format"].clone())
    }),
    ignored(
        "logging.flushFrequency",
        DurationOrNanoseconds,
        &["0s", "5s"],
        LOG,
    ),
    sets("logging.verbosity", Integer, &["0"], "log_level", log_level),
    ignored(
        "logging.vmodule",
        Verbosities,
        EMPTY,
        "the files are kube-proxy's own; logLevel takes directives by module",
    ),
    ignored("logging.options.text.splitStream", Boolean, FALSE, LOG),
    ignored("logging.options.text.infoBufferSize", Quantity, &["0"], LOG),
    ignored("logging.options.json.splitStream", Boolean, FALSE, LOG),
    ignored("logging.options.json.infoBufferSize", Quantity, &["0"], LOG),
    sets("hostnameOverride", Text, EMPTY, "node_name", |given| {
        Ok(lower_case(&given["hostnameOverride"]))
    }),
    ignored(
        "bindAddress",
        Text,
        &["", "0.0.0.0"],
        "Weir takes the node's addresses from its devices and its Node object",
    ),
    sets(
        "healthzBindAddress",
        Text,
        EMPTY,
        "healthz_address",
        |given| Ok(with_port(&given["healthzBindAddress"], 10256)),
    ),
    sets(
        "metricsBindAddress",
        Text,
        EMPTY,
        "metrics_address",
        |given| Ok(with_port(&given["metricsBindAddress"], 10249)),
    ),
    ignored(
        "bindAddressHardFail",
        Boolean,
        FALSE,
        "Weir always stops when it cannot bind an address",
    ),
    ignored("enableProfiling", Boolean, FALSE, "Weir serves no profiles"),
    ignored(
        "showHiddenMetricsForVersion",
        Text,
        EMPTY,
        "Weir hides no metrics",
    ),
    ignored("mode", Text, EMPTY, "Weir has one data path, in eBPF"),
    ignored("iptables.masqueradeBit", Integer, &["14"], IPTABLES),
    ignored("iptables.masqueradeAll", Boolean, FALSE, MASQUERADE),
    ignored("iptables.localhostNodePorts", Boolean, &["true"], IPTABLES),
    ignored("iptables.syncPeriod", Duration, EVERY_30_S, IPTABLES),
    ignored("iptables.minSyncPeriod", Duration, EVERY_1_S, IPTABLES),
    ignored("ipvs.syncPeriod", Duration, EVERY_30_S, IPVS),
    ignored("ipvs.minSyncPeriod", Duration, NEVER, IPVS),
    ignored("ipvs.scheduler", Text, EMPTY, IPVS),
    ignored("ipvs.excludeCIDRs", Texts, EMPTY, IPVS),
    ignored("ipvs.strictARP", Boolean, FALSE, IPVS),
    ignored("ipvs.tcpTimeout", Duration, NEVER, IPVS),
    ignored("ipvs.tcpFinTimeout", Duration, NEVER, IPVS),
    ignored("ipvs.udpTimeout", Duration, NEVER, IPVS),
    ignored("nftables.masqueradeBit", Integer, &["14"], NFTABLES),
    ignored("nftables.masqueradeAll", Boolean, FALSE, MASQUERADE),
    ignored("nftables.syncPeriod", Duration, EVERY_30_S, NFTABLES),
    ignored("nftables.minSyncPeriod", Duration, EVERY_1_S, NFTABLES),
    ignored("winkernel.networkName", Text, EMPTY, WINDOWS),
    ignored("winkernel.sourceVip", Text, EMPTY, WINDOWS),
    ignored("winkernel.enableDSR", Boolean, FALSE, WINDOWS),
    ignored("winkernel.rootHnsEndpointName", Text, EMPTY, WINDOWS),
    ignored("winkernel.forwardHealthCheckVip", Boolean, FALSE, WINDOWS),
    ignored("detectLocalMode", Text, EMPTY, LOCAL),
    ignored("detectLocal.bridgeInterface", Text, EMPTY, LOCAL),
    ignored("detectLocal.interfaceNamePrefix", Text, EMPTY, LOCAL),
    ignored("clusterCIDR", Text, EMPTY, LOCAL),
    sets(
        "nodePortAddresses",
        Texts,
        EMPTY,
        "node_port_addresses",
        |given| Ok(given["nodePortAddresses"].clone()),
    ),
    ignored(
        "oomScoreAdj",
        Integer,
        &["-999"],
        "the score is set by who starts Weir: a pod's resources and priority, or systemd",
    ),
    sets(
        "conntrack.maxPerCore",
        Integer,
        &[],
        "flow_capacity",
        flow_capacity,
    ),
    sets(
        "conntrack.min",
        Integer,
        &[],
        "flow_capacity",
        flow_capacity,
    ),
    ignored(
        "conntrack.tcpEstablishedTimeout",
        Duration,
        &["24h"],
        TIMEOUT,
    ),
    ignored("conntrack.tcpCloseWaitTimeout", Duration, &["1h"], TIMEOUT),
    ignored(
        "conntrack.tcpBeLiberal",
        Boolean,
        FALSE,
        "Weir's own connection tracking drops no packet for its sequence number",
    ),
    ignored("conntrack.udpTimeout", Duration, NEVER, TIMEOUT),
    ignored("conntrack.udpStreamTimeout", Duration, NEVER, TIMEOUT),
    ignored(
        "configSyncPeriod",
        Duration,
        &["0s", "15m"],
        "Weir is told of changes by watches",
    ),
    ignored(
        "portRange",
        Text,
        EMPTY,
        "kube-proxy does not use it either",
    ),
    ignored("windowsRunAsService", Boolean, FALSE, WINDOWS),
];

/// klog's verbosity: kube-proxy says little at 2, what it changes at 4, every packet rule from 6 on.
fn log_level(given: &Given) -> Result<Value, &'static str> {
    let level = match given["logging.verbosity"].as_u64() {
        None | Some(0..=3) => "info",
        Some(4..=5) => "debug",
        Some(_) => "trace",
    };
    Ok(level.into())
}

/// As kube-proxy makes a node's name of it.
fn lower_case(name: &Value) -> Value {
    let name = name.as_str().unwrap_or_default();
    name.trim().to_lowercase().into()
}

/// kube-proxy adds the usual port to a bare address.
fn with_port(address: &Value, port: u16) -> Value {
    let bare: Option<IpAddr> = address.as_str().and_then(|text| text.parse().ok());
    bare.map_or_else(
        || address.clone(),
        |address| SocketAddr::new(address, port).to_string().into(),
    )
}

/// What kube-proxy makes the kernel's limit: so many for each CPU, and no less than the minimum; 0 for each CPU is no limit
/// of its own. Less than 0 is left for the option to refuse.
fn flow_capacity(given: &Given) -> Result<Value, &'static str> {
    let number = |path, default| given.get(path).and_then(Value::as_i64).unwrap_or(default);
    let per_cpu = number("conntrack.maxPerCore", 32 * 1024);
    let least = number("conntrack.min", 128 * 1024);
    match per_cpu.min(least) {
        negative if negative < 0 => Ok(negative.into()),
        _ if per_cpu == 0 => Err("with maxPerCore 0 kube-proxy leaves the limit as it is"),
        _ => Ok(least.max(per_cpu.saturating_mul(cpus())).into()),
    }
}

/// CPUs that this process may use.
fn cpus() -> i64 {
    let set = rustix::thread::sched_getaffinity(None);
    set.map_or(1, |set| i64::from(set.count()))
}
