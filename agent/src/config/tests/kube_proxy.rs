//! Import of kube-proxy's configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::config::definition::definitions;
use crate::config::file::{self, File};
use crate::config::kube_proxy::{FIELDS, Fate};

/// Every field of v1alpha1 in Kubernetes 1.36, none with its default.
const EVERYTHING: &str = "
featureGates: {KubeProxyDrainingTerminatingNodes: true}
clientConnection: {kubeconfig: /etc/kp, acceptContentTypes: application/json, contentType: application/json, qps: 7.5, burst: 20}
logging:
  format: json
  flushFrequency: 10s
  verbosity: 4
  vmodule: [{filePattern: proxier, verbosity: 9}]
  options:
    text: {splitStream: true, infoBufferSize: 64Ki}
    json: {splitStream: true, infoBufferSize: 1024}
hostnameOverride: Node-One
bindAddress: '::'
healthzBindAddress: 10.0.0.1:1256
metricsBindAddress: fd00::1
bindAddressHardFail: true
enableProfiling: true
showHiddenMetricsForVersion: '1.35'
mode: ipvs
iptables: {masqueradeBit: 3, masqueradeAll: true, localhostNodePorts: false, syncPeriod: 1m, minSyncPeriod: 250ms}
ipvs: {syncPeriod: 1m, minSyncPeriod: 1s, scheduler: lc, excludeCIDRs: [10.0.0.0/8], strictARP: true, tcpTimeout: 1h, tcpFinTimeout: 1m, udpTimeout: 30s}
nftables: {masqueradeBit: 3, masqueradeAll: true, syncPeriod: 1m, minSyncPeriod: 2s}
winkernel: {networkName: a, sourceVip: 10.0.0.9, enableDSR: true, rootHnsEndpointName: b, forwardHealthCheckVip: true}
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: br0, interfaceNamePrefix: veth}
clusterCIDR: 10.244.0.0/16
nodePortAddresses: [primary]
oomScoreAdj: -100
conntrack: {maxPerCore: 1, min: 300000, tcpEstablishedTimeout: 2h, tcpCloseWaitTimeout: 2h, tcpBeLiberal: true, udpTimeout: 30s, udpStreamTimeout: 3m}
configSyncPeriod: 5m
portRange: 30000-32000
windowsRunAsService: true
";

/// The same with the defaults, in the forms that kube-proxy, kubeadm and people write them in.
const NOTHING: &str = "
featureGates: {}
clientConnection: {kubeconfig: '', acceptContentTypes: '', contentType: application/vnd.kubernetes.protobuf, qps: 5, burst: 10}
logging:
  format: ''
  flushFrequency: 5000000000
  verbosity: 0
  vmodule: []
  options:
    text: {splitStream: false, infoBufferSize: '0'}
    json: {infoBufferSize: 0}
hostnameOverride: ''
bindAddress: 0.0.0.0
healthzBindAddress: ''
metricsBindAddress: ''
bindAddressHardFail: false
enableProfiling: false
showHiddenMetricsForVersion: ''
mode: ''
iptables: {masqueradeBit: null, masqueradeAll: false, localhostNodePorts: null, syncPeriod: 0m30s, minSyncPeriod: 0s}
ipvs: {syncPeriod: 0s, minSyncPeriod: 0s, scheduler: '', excludeCIDRs: null, strictARP: false, tcpTimeout: 0s, tcpFinTimeout: 0s, udpTimeout: 0s}
nftables: {masqueradeBit: 14, masqueradeAll: false, syncPeriod: 30s, minSyncPeriod: 1s}
winkernel: {networkName: '', sourceVip: '', enableDSR: false, rootHnsEndpointName: '', forwardHealthCheckVip: false}
detectLocalMode: ''
detectLocal:
clusterCIDR: ''
nodePortAddresses: []
oomScoreAdj: -999
conntrack: {maxPerCore: null, min: null, tcpEstablishedTimeout: 24h0m0s, tcpCloseWaitTimeout: 1h0m0s, udpTimeout: '0'}
configSyncPeriod: 15m0s
portRange: ''
windowsRunAsService: false
";

fn import(text: &str) -> Result<File, String> {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    file::parse(Path::new("kp.yaml"), &format!("{head}{text}")).map_err(|error| error.to_string())
}

/// What options are given.
fn options(file: &File) -> BTreeMap<&str, &str> {
    let text = |values: &[std::ffi::OsString]| values.len() == 1;
    file.values
        .iter()
        .inspect(|(id, (values, _))| assert!(text(values), "{id}: {values:?}"))
        .map(|(id, (values, _))| (id.as_str(), values[0].to_str().unwrap()))
        .collect()
}

#[test]
fn every_field_is_taken_over_or_named() {
    let file = import(EVERYTHING).unwrap();
    assert_eq!(
        options(&file),
        BTreeMap::from([
            ("flow_capacity", "300000"),
            ("healthz_address", "10.0.0.1:1256"),
            ("kubeconfig", "/etc/kp"),
            ("log_format", "json"),
            ("log_level", "debug"),
            ("metrics_address", "[fd00::1]:10249"),
            ("node_name", "node-one"),
            ("node_port_addresses", "primary"),
        ])
    );
    let ignored: BTreeSet<_> = file
        .ignored
        .iter()
        .map(|one| one.place.field.as_str())
        .collect();
    let expected = FIELDS
        .iter()
        .filter(|field| matches!(field.fate, Fate::Ignored(_)));
    let expected: BTreeSet<_> = expected.map(|field| field.path).collect();
    assert_eq!(ignored, expected);
    let all: BTreeSet<String> = FIELDS.iter().map(|field| field.path.to_owned()).collect();
    assert_eq!(all.len(), FIELDS.len());
    assert_eq!(leaves(EVERYTHING), all);
    let mode = file
        .ignored
        .iter()
        .find(|one| one.place.field == "mode")
        .unwrap();
    assert_eq!(mode.value, "ipvs");
}

/// Paths of a document's fields; gates are one field.
fn leaves(text: &str) -> BTreeSet<String> {
    fn collect(above: &str, value: &Value, paths: &mut BTreeSet<String>) {
        match value.as_object() {
            Some(fields) if above != "featureGates" => {
                for (key, value) in fields {
                    let dot = if above.is_empty() { "" } else { "." };
                    collect(&format!("{above}{dot}{key}"), value, paths);
                }
            }
            _ => {
                paths.insert(above.to_owned());
            }
        }
    }
    let mut paths = BTreeSet::new();
    collect("", &serde_saphyr::from_str(text).unwrap(), &mut paths);
    paths
}

#[test]
fn defaults_are_neither_taken_over_nor_named() {
    let file = import(NOTHING).unwrap();
    assert_eq!(options(&file), BTreeMap::new());
    assert_eq!(file.ignored, []);
}

#[test]
fn each_option_named_exists() {
    let options = definitions();
    for field in FIELDS {
        if let Fate::Sets { option, .. } = field.fate {
            assert!(
                options.iter().any(|one| one.id() == option),
                "{}",
                field.path
            );
        }
    }
}

#[test]
fn values_mean_what_they_mean_to_kube_proxy() {
    let cpus = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = cpus
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed:\t"));
    let cpus: u32 = cpus
        .unwrap()
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(u32::count_ones)
        .sum();
    let per_cpu = (200_000 * cpus).to_string();
    for (text, option, value) in [
        ("conntrack: {min: 500000}", "flow_capacity", Some("500000")),
        (
            "conntrack: {maxPerCore: 200000}",
            "flow_capacity",
            Some(per_cpu.as_str()),
        ),
        (
            "conntrack: {maxPerCore: 0, min: 500000}",
            "flow_capacity",
            None,
        ),
        ("logging: {verbosity: 2}", "log_level", Some("info")),
        ("logging: {verbosity: 6}", "log_level", Some("trace")),
        (
            "healthzBindAddress: 0.0.0.0",
            "healthz_address",
            Some("0.0.0.0:10256"),
        ),
        (
            "healthzBindAddress: '[::]:1'",
            "healthz_address",
            Some("[::]:1"),
        ),
    ] {
        let file = import(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(options(&file).get(option).copied(), value, "{text}");
        assert_eq!(file.ignored.is_empty(), value.is_some(), "{text}");
    }
}

#[test]
fn mistakes_name_the_field() {
    for (text, message) in [
        (
            "iptable: {}",
            "kp.yaml: unknown key \"iptable\": is \"iptables\" meant?",
        ),
        (
            "iptables: {syncPerod: 1s}",
            "unknown key \"iptables.syncPerod\": is \"syncPeriod\" meant?",
        ),
        (
            "logging: {options: {text: {split: true}}}",
            "unknown key \"logging.options.text.split\"",
        ),
        (
            "ipvs: true",
            "kp.yaml: ipvs cannot be true: it must be a map of fields",
        ),
        ("mode: 3", "mode cannot be 3: it must be a text"),
        (
            "iptables: {syncPeriod: 30}",
            "iptables.syncPeriod cannot be 30: it must be a duration",
        ),
        ("iptables: {syncPeriod: soon}", "it must be a duration"),
        (
            "enableProfiling: 'true'",
            "enableProfiling cannot be \"true\": it must be true or false",
        ),
        ("oomScoreAdj: 1.5", "it must be a whole number"),
        ("nodePortAddresses: primary", "it must be a list of texts"),
        (
            "featureGates: {A: 1}",
            "featureGates cannot be {\"A\":1}: it must be a map of names to true or false",
        ),
        (
            "logging: {vmodule: [{file: a}]}",
            "it must be a list of maps of filePattern and verbosity",
        ),
        (
            "logging: {format: xml}",
            "logging.format cannot be \"xml\": it must be one of text, json",
        ),
        (
            "logging: {verbosity: high}",
            "logging.verbosity cannot be \"high\": it must be a whole number",
        ),
        (
            "healthzBindAddress: ':10256'",
            "healthzBindAddress cannot be \":10256\": invalid socket address syntax",
        ),
        (
            "conntrack: {min: -5}",
            "conntrack.min cannot be -5: -5 is not in 1024..=16777216",
        ),
    ] {
        let error = import(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}
