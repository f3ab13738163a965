//! `weir flows`.

use std::ops::ControlFlow;

use anyhow::Result;

use super::agents::Said;
use super::args::{LiveQuery, OutputFormat};
use super::ask::{self, ask_all};
use super::{command, print, write_on};
use crate::admin::Followed;
use crate::flows::{Filter, Record};

/// Shows the newest records that are wanted, at most `last`.
pub(super) fn list(filter: &Filter, last: Option<usize>, query: &LiveQuery) -> Result<()> {
    let mut answers = ask_all::<Vec<Record>>(&query.whom, "/v1/flow-records", &[])?;
    let records = answers.given.iter_mut();
    let records = records.flat_map(|(_, records)| std::mem::take(records));
    let mut records: Vec<_> = records.filter(|record| filter.matches(record)).collect();
    records.sort_by_key(|record| record.time);
    let older = records.len().saturating_sub(last.unwrap_or(usize::MAX));
    command::list(
        query.output,
        "FlowRecordList",
        &records[older..],
        print::flow_records,
    )?;
    answers.complete()
}

/// Shows the records that are wanted, and those that come, a line for each.
pub(super) fn follow(filter: &Filter, query: &LiveQuery) -> Result<()> {
    let mut written = Ok(());
    ask::follow(
        &query.whom,
        "/v1/flow-records/follow",
        |said: Said<Followed<Box<Record>>>| {
            let followed = match said {
                Said::Line(followed) => followed,
                Said::Asked(_) => return ControlFlow::Continue(()),
                Said::Ended { node, why } => {
                    eprintln!("{node}: {why}");
                    return ControlFlow::Continue(());
                }
            };
            let record = match &followed {
                Followed::Told(record) if !filter.matches(record) => {
                    return ControlFlow::Continue(());
                }
                Followed::Told(record) => record,
                Followed::Lost { lost } => {
                    eprintln!("{lost} records are lost: they came faster than they were read");
                    return ControlFlow::Continue(());
                }
            };
            let text = match query.output {
                OutputFormat::Table => Ok(print::flow_line(record)),
                OutputFormat::Json => print::json_line(record),
                OutputFormat::Yaml => print::yaml_document(record),
            };
            match text.and_then(|text| Ok(write_on(&text)?)) {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => ControlFlow::Break(()),
                Err(error) => {
                    written = Err(error);
                    ControlFlow::Break(())
                }
            }
        },
    )?;
    written
}
