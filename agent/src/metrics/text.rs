//! Samples and counts as OpenMetrics text.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use weir_common::abi::Hook;

use super::names::{self, Name};
use super::proxy::{self, Metric};
use super::sample::Sample;
use super::tally::Tally;
use crate::flows::Outcome;

/// Content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as text.
#[must_use]
pub fn encode(sample: Sample, tally: &Arc<Tally>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        sample,
        tally: Arc::clone(tally),
    }));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        // Writing to a string cannot fail, and a sample has no other way to.
        Err(fmt::Error) => String::new(),
    }
}

#[derive(Debug)]
struct Scrape {
    sample: Sample,
    tally: Arc<Tally>,
}

/// One metric being written.
pub(super) struct Lines<'a>(MetricEncoder<'a>);

impl Lines<'_> {
    /// Its only value.
    pub(super) fn only(self, value: &impl EncodeMetric) -> fmt::Result {
        value.encode(self.0)
    }

    /// A value with labels.
    pub(super) fn add<const N: usize>(
        &mut self,
        labels: [(&str, &str); N],
        value: &impl EncodeMetric,
    ) -> fmt::Result {
        value.encode(self.0.encode_family(&labels)?)
    }

    pub(super) fn gauge<const N: usize>(
        &mut self,
        labels: [(&str, &str); N],
        value: u64,
    ) -> fmt::Result {
        self.add(labels, &gauge(value))
    }

    pub(super) fn counter<const N: usize>(
        &mut self,
        labels: [(&str, &str); N],
        value: u64,
    ) -> fmt::Result {
        self.add(labels, &ConstCounter::new(value))
    }
}

pub(super) fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = &self.sample;
        let counts = self.tally.counts();
        let mut metric =
            |Name { name, help }: Name, kind, lines: &dyn Fn(Lines<'_>) -> fmt::Result| {
                lines(Lines(encoder.encode_descriptor(name, help, None, kind)?))
            };
        use MetricType::{Counter, Gauge, Histogram, Info};

        metric(names::BUILD, Info, &|mut lines| {
            lines.0.encode_info(&[("version", sample.version.as_str())])
        })?;
        metric(names::SYNC_DURATION, Histogram, &|mut lines| {
            let mut durations = counts.durations.iter();
            durations.try_for_each(|(stage, time)| lines.add([("stage", stage.name())], time))
        })?;
        metric(names::SYNC_ERRORS, Counter, &|mut lines| {
            let mut errors = counts.errors.iter();
            errors.try_for_each(|(stage, count)| lines.counter([("stage", stage.name())], *count))
        })?;
        metric(names::LAST_SYNC, Gauge, &|lines| {
            lines.only(&ConstGauge::new(sample.last_sync.unwrap_or_default()))
        })?;
        metric(names::WATCH_SYNCED, Gauge, &|mut lines| {
            let mut watches = sample.watches.iter();
            watches.try_for_each(|(kind, synced)| {
                lines.gauge([("kind", kind.as_str())], u64::from(*synced))
            })
        })?;
        metric(names::WATCH_ERRORS, Counter, &|mut lines| {
            let mut errors = sample.watch_errors.iter();
            errors.try_for_each(|(kind, count)| lines.counter([("kind", kind.as_str())], *count))
        })?;
        metric(names::REJECTED, Gauge, &|mut lines| {
            let mut rejected = sample.rejected.iter();
            rejected.try_for_each(|(kind, count)| lines.gauge([("kind", kind)], *count))
        })?;
        metric(names::MAP_DRIFT, Counter, &|mut lines| {
            let mut drift = counts.drift.iter();
            drift.try_for_each(|(map, elements)| lines.counter([("map", *map)], *elements))
        })?;
        metric(names::MAP_ENTRIES, Gauge, &|mut lines| {
            let mut maps = sample.maps.iter();
            maps.try_for_each(|(map, fill)| lines.gauge([("map", map)], fill.entries))
        })?;
        metric(names::MAP_CAPACITY, Gauge, &|mut lines| {
            let mut maps = sample.maps.iter();
            maps.try_for_each(|(map, fill)| lines.gauge([("map", map)], fill.capacity))
        })?;
        let judged = |mut lines: Lines<'_>, value: &dyn Fn(&weir_common::abi::Counter) -> u64| {
            sample.packets.iter().try_for_each(|(hook, reason, count)| {
                let labels = [
                    ("direction", hook.direction()),
                    ("verdict", Outcome::of_reason(*reason).name()),
                    ("reason", reason.name()),
                ];
                lines.counter(labels, value(count))
            })
        };
        metric(names::PACKETS, Counter, &|lines| {
            judged(lines, &|count| count.packets)
        })?;
        metric(names::BYTES, Counter, &|lines| {
            judged(lines, &|count| count.bytes)
        })?;
        metric(names::FLOWS, Counter, &|mut lines| {
            counts.flows.iter().try_for_each(|(kind, count)| {
                let labels = [
                    ("verdict", kind.verdict.name()),
                    ("direction", kind.direction.as_str()),
                    ("protocol", kind.protocol),
                ];
                lines.counter(labels, *count)
            })
        })?;
        metric(names::WORKLOAD_FLOWS, Counter, &|mut lines| {
            let counts = counts.talkers.counts();
            counts.iter().try_for_each(|(talk, count)| {
                let labels = [
                    ("source", talk.source.as_str()),
                    ("destination", talk.destination.as_str()),
                    ("verdict", talk.verdict.name()),
                    ("reason", talk.reason.as_str()),
                    ("policy", talk.policy.as_str()),
                ];
                lines.counter(labels, *count)
            })
        })?;
        metric(names::CONNTRACK_ENTRIES, Gauge, &|lines| {
            lines.only(&gauge(sample.conntrack.entries))
        })?;
        metric(names::CONNTRACK_CAPACITY, Gauge, &|lines| {
            lines.only(&gauge(sample.conntrack.capacity))
        })?;
        metric(names::CONNTRACK_INSERTED, Counter, &|lines| {
            lines.only(&ConstCounter::new(sample.conntrack_inserted))
        })?;
        metric(names::CONNTRACK_EXPIRED, Counter, &|lines| {
            lines.only(&ConstCounter::new(counts.expired))
        })?;
        for (name, count) in [
            (names::CONNTRACK_ENDED, counts.walks.entries_ended),
            (names::CONNTRACK_LOST, counts.walks.entries_lost),
            (names::FLOWS_ENDED, counts.walks.flows_ended),
            (names::FLOW_LOG_WRITTEN, counts.flow_log.written),
            (names::FLOW_LOG_LOST, counts.flow_log.lost),
        ] {
            metric(name, Counter, &|lines| {
                lines.only(&ConstCounter::new(count))
            })?;
        }
        metric(names::EVENTS_LOST, Counter, &|lines| {
            lines.only(&ConstCounter::new(sample.events_lost))
        })?;
        metric(names::EPOCH, Counter, &|lines| {
            lines.only(&ConstCounter::new(sample.epoch))
        })?;
        metric(names::UNPROTECTED, Histogram, &|lines| {
            lines.only(&counts.unprotected)
        })?;
        metric(names::ATTACHED, Gauge, &|mut lines| {
            Hook::ALL.into_iter().try_for_each(|hook| {
                let devices = match hook {
                    Hook::FromPod | Hook::ToPod => sample.attached,
                    Hook::FromNet | Hook::ToNet => sample.attached_nets,
                };
                lines.gauge([("hook", hook_name(hook))], devices)
            })?;
            lines.gauge([("hook", "xdp_net")], sample.attached_xdp)
        })?;
        metric(names::REQUESTS, Counter, &|mut lines| {
            sample.requests.iter().try_for_each(|(request, count)| {
                let labels = [
                    ("code", request.code.as_str()),
                    ("host", request.host.as_str()),
                    ("method", request.method.as_str()),
                ];
                lines.counter(labels, *count)
            })
        })?;
        process(sample, &mut metric)?;
        proxy::encode(&counts.proxy, sample, &mut metric)
    }
}

/// What Prometheus' own clients tell of their process.
fn process(sample: &Sample, metric: &mut Metric<'_>) -> fmt::Result {
    let process = &sample.process;
    metric(names::PROCESS_CPU, MetricType::Counter, &|lines| {
        lines.only(&ConstCounter::new(process.cpu_seconds))
    })?;
    metric(names::PROCESS_START, MetricType::Gauge, &|lines| {
        lines.only(&ConstGauge::new(process.start_seconds))
    })?;
    for (name, value) in [
        (names::PROCESS_RESIDENT, process.resident_bytes),
        (names::PROCESS_VIRTUAL, process.virtual_bytes),
        (names::PROCESS_FDS, process.open_fds),
        (names::PROCESS_MOST_FDS, process.max_fds),
    ] {
        metric(name, MetricType::Gauge, &|lines| lines.only(&gauge(value)))?;
    }
    Ok(())
}

const fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::FromPod => "from_pod",
        Hook::ToPod => "to_pod",
        Hook::FromNet => "from_net",
        Hook::ToNet => "to_net",
    }
}
