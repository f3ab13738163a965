//! What kube-proxy counts, by its names, labels and buckets (pkg/proxy/metrics of Kubernetes 1.36): its dashboards and alerts go on
//! working.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::MetricType::{self, Counter, Gauge, Histogram};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram;

use super::names::{self, Name};
use super::sample::Sample;
use super::text::{Lines, gauge};

/// Value of label `ip_family`.
const fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

/// Both of them. Weir writes both families at once: they share times.
const FAMILIES: [bool; 2] = [true, false];

/// Kinds of changes that wait for the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed objects that the kernel's maps do not hold yet.
    pub pending: u64,
    /// Objects told of, changed or not.
    pub total: u64,
}

/// Ways to ask whether the agent is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// /healthz
    Healthz,
    /// /livez
    Livez,
}

/// Counts under kube-proxy's names.
#[derive(Debug)]
pub struct Proxy {
    /// Changed Services.
    pub services: Changes,
    /// Changed EndpointSlices.
    pub endpoints: Changes,
    queued: Option<SystemTime>,
    synced: Option<SystemTime>,
    all: histogram::Histogram,
    full: histogram::Histogram,
    partial: histogram::Histogram,
    programming: BTreeMap<bool, histogram::Histogram>,
    answers: BTreeMap<(Asked, u16), u64>,
}

impl Default for Proxy {
    fn default() -> Self {
        let syncs = || histogram::Histogram::new(histogram::exponential_buckets(0.001, 2.0, 15));
        Self {
            services: Changes::default(),
            endpoints: Changes::default(),
            queued: None,
            synced: None,
            all: syncs(),
            full: syncs(),
            partial: syncs(),
            programming: FAMILIES
                .map(|v4| (v4, histogram::Histogram::new(programming_buckets())))
                .into(),
            answers: BTreeMap::new(),
        }
    }
}

/// In seconds: 0, two quarters, 59 whole ones, in steps of 5 up to 115, in steps of 30 up to 300.
fn programming_buckets() -> impl Iterator<Item = f64> {
    let steps = |first: u32, last, step| (first..=last).map(move |n| f64::from(n) * step);
    let short = [0.0].into_iter().chain(steps(1, 2, 0.25));
    let long = steps(12, 23, 5.0).chain(steps(4, 10, 30.0));
    short.chain(steps(1, 59, 1.0)).chain(long)
}

impl Proxy {
    /// A change of Services or endpoints is to be carried out.
    pub fn queued(&mut self, now: SystemTime) {
        self.queued = Some(now);
    }

    /// Carrying out what was queued took so long, by a whole new generation of maps or by what differs.
    pub fn took(&mut self, whole: bool, time: Duration) {
        let seconds = time.as_secs_f64();
        self.all.observe(seconds);
        let one = if whole { &self.full } else { &self.partial };
        one.observe(seconds);
    }

    /// The kernel's maps hold everything that was queued.
    pub fn synced(&mut self, now: SystemTime) {
        self.synced = Some(now);
        self.services.pending = 0;
        self.endpoints.pending = 0;
    }

    /// A change of endpoints is in the kernel's maps, so long after what made it.
    pub fn programmed(&mut self, v4: bool, time: Duration) {
        if let Some(histogram) = self.programming.get(&v4) {
            histogram.observe(time.as_secs_f64());
        }
    }

    /// Somebody was answered.
    pub fn answered(&mut self, asked: Asked, code: u16) {
        *self.answers.entry((asked, code)).or_default() += 1;
    }
}

/// Writes one metric.
pub(super) type Metric<'m> =
    dyn FnMut(Name, MetricType, &dyn Fn(Lines<'_>) -> fmt::Result) -> fmt::Result + 'm;

/// Writes all of them.
pub(super) fn encode(proxy: &Proxy, sample: &Sample, metric: &mut Metric<'_>) -> fmt::Result {
    for (name, durations) in [
        (names::PROXY_SYNC, &proxy.all),
        (names::PROXY_SYNC_FULL, &proxy.full),
        (names::PROXY_SYNC_PARTIAL, &proxy.partial),
    ] {
        metric(name, Histogram, &|mut lines| {
            FAMILIES
                .iter()
                .try_for_each(|v4| lines.add([("ip_family", family(*v4))], durations))
        })?;
    }
    for (name, time) in [
        (names::PROXY_QUEUED, proxy.queued),
        (names::PROXY_SYNCED, proxy.synced),
    ] {
        let time = ConstGauge::new(unix(time));
        metric(name, Gauge, &|mut lines| {
            FAMILIES
                .iter()
                .try_for_each(|v4| lines.add([("ip_family", family(*v4))], &time))
        })?;
    }
    metric(names::PROXY_PROGRAMMING, Histogram, &|mut lines| {
        let mut programming = proxy.programming.iter().rev();
        programming.try_for_each(|(v4, time)| lines.add([("ip_family", family(*v4))], time))
    })?;
    for (pending, total, changes) in [
        (
            names::PROXY_ENDPOINTS_PENDING,
            names::PROXY_ENDPOINTS,
            proxy.endpoints,
        ),
        (
            names::PROXY_SERVICES_PENDING,
            names::PROXY_SERVICES,
            proxy.services,
        ),
    ] {
        metric(pending, Gauge, &|lines| lines.only(&gauge(changes.pending)))?;
        metric(total, Counter, &|lines| {
            lines.only(&ConstCounter::new(changes.total))
        })?;
    }
    metric(names::PROXY_NO_LOCAL_ENDPOINTS, Gauge, &|mut lines| {
        for v4 in FAMILIES {
            let count = sample.without_local(v4);
            for (policy, count) in [("internal", count.internal), ("external", count.external)] {
                let labels = [("ip_family", family(v4)), ("traffic_policy", policy)];
                lines.gauge(labels, count)?;
            }
        }
        Ok(())
    })?;
    for (name, asked) in [
        (names::PROXY_HEALTHZ, Asked::Healthz),
        (names::PROXY_LIVEZ, Asked::Livez),
    ] {
        metric(name, Counter, &|mut lines| {
            let answers = proxy.answers.iter();
            let mut answers = answers.filter(|((to, _), _)| *to == asked);
            answers.try_for_each(|((_, code), count)| {
                lines.counter([("code", code.to_string().as_str())], *count)
            })
        })?;
    }
    Ok(())
}

/// Seconds since 1970; 0 for what has not been yet.
fn unix(time: Option<SystemTime>) -> f64 {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programming_is_counted_in_kube_proxys_buckets() {
        let buckets: Vec<_> = programming_buckets().collect();
        assert_eq!(buckets.len(), 1 + 2 + 59 + 12 + 7);
        assert_eq!(buckets[..5], [0.0, 0.25, 0.5, 1.0, 2.0]);
        assert_eq!(buckets[61..64], [59.0, 60.0, 65.0]);
        assert_eq!(
            buckets[72..],
            [
                110.0, 115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0
            ]
        );
        assert!(buckets.is_sorted());
    }
}
