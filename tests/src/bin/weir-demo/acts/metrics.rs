//! The agents' own counts.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::Demo;
use crate::screen::Cell;

const NODES: [&str; 2] = ["node1", "node2"];

pub(super) fn play(demo: &mut Demo) -> Result<()> {
    // Direction, verdict and reason, to packets on each node.
    let mut packets: BTreeMap<[String; 3], [u64; 2]> = BTreeMap::new();
    let mut totals = Vec::new();
    for (n, node) in NODES.into_iter().enumerate() {
        let text = demo.shop.cluster.metrics(node)?;
        for (labels, value) in samples(&text, "weir_packets_total") {
            let key = ["direction", "verdict", "reason"]
                .map(|name| labels.get(name).copied().unwrap_or_default().to_owned());
            packets.entry(key).or_default()[n] += value;
        }
        for name in ["weir_conntrack_inserted_total", "weir_policy_epoch_total"] {
            let value: u64 = samples(&text, name).map(|(_, value)| value).sum();
            totals.push(vec![name.into(), node.into(), value.to_string().into()]);
        }
    }
    packets.retain(|_, counts| counts.iter().any(|&count| count > 0));
    let row = |([direction, verdict, reason], counts): (&[String; 3], &[u64; 2])| -> Vec<Cell> {
        let reason = if verdict == "allowed" {
            Cell::good(reason)
        } else {
            Cell::bad(reason)
        };
        let mut row = vec![direction.as_str().into(), verdict.as_str().into(), reason];
        row.extend(counts.iter().map(|count| count.to_string().into()));
        row
    };
    let rows: Vec<_> = packets.iter().map(row).collect();
    demo.screen.table(
        &[
            "DIRECTION",
            "VERDICT",
            "REASON",
            "NODE1 PACKETS",
            "NODE2 PACKETS",
        ],
        &rows,
    );
    demo.screen.table(&["METRIC", "NODE", "VALUE"], &totals);
    for (n, node) in NODES.into_iter().enumerate() {
        let denied: u64 = packets
            .iter()
            .filter(|([_, _, reason], _)| reason.contains("denied"))
            .map(|(_, counts)| counts[n])
            .sum();
        let established: u64 = packets
            .iter()
            .filter(|([_, _, reason], _)| reason.contains("established"))
            .map(|(_, counts)| counts[n])
            .sum();
        demo.ledger.note_true(
            &format!("{node} counts packets denied by policy"),
            denied > 0,
        );
        demo.ledger.note_true(
            &format!("{node} counts packets of established flows, across restarts"),
            established > 1000,
        );
    }
    Ok(())
}

/// The samples of a metric: labels and value.
fn samples<'t>(
    text: &'t str,
    name: &str,
) -> impl Iterator<Item = (BTreeMap<&'t str, &'t str>, u64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        Some((labels, value.split(' ').next()?.parse::<f64>().ok()? as u64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# TYPE a counter\na_total{x=\"1\",y=\"z\"} 7\na_total_more 3\nb 2.0\n";
        let found: Vec<_> = samples(text, "a_total").collect();
        assert_eq!(found, [(BTreeMap::from([("x", "1"), ("y", "z")]), 7)]);
        assert_eq!(samples(text, "b").next().map(|(_, value)| value), Some(2));
    }
}
