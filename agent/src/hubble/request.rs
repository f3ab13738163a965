//! What a request for flows asks.

use jiff::Timestamp;

use super::filter::{FilterError, Filters};
use super::flow::flow;
use super::mask::{Mask, MaskError};
use super::proto::flow::Flow;
use super::proto::observer::GetFlowsRequest;
use crate::flows::Record;
use crate::model::Snapshot;

/// Why a request cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The mask.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// A time.
    #[error("{0} is no time")]
    Time(&'static str),
    /// Two that contradict each other.
    #[error("first and follow together have no meaning: leave one of them out")]
    FirstAndFollow,
}

/// A request, understood.
#[derive(Debug)]
pub(super) struct Asked {
    /// At most so many of those that there are; 0 is no bound.
    number: usize,
    /// The oldest of them, not the newest.
    first: bool,
    /// Go on with those that come.
    pub(super) follow: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    filters: Filters,
    mask: Mask,
}

impl Asked {
    pub(super) fn new(request: GetFlowsRequest) -> Result<Self, RequestError> {
        let GetFlowsRequest {
            number,
            first,
            follow,
            blacklist,
            whitelist,
            since,
            until,
            field_mask,
            experimental: _,
            extensions: _,
        } = request;
        if first && follow {
            return Err(RequestError::FirstAndFollow);
        }
        Ok(Self {
            number: usize::try_from(number).unwrap_or(usize::MAX),
            first,
            follow,
            since: time("since", since)?,
            until: time("until", until)?,
            filters: Filters::new(whitelist, blacklist)?,
            mask: Mask::new(field_mask)?,
        })
    }

    /// Those that are wanted of what there is, oldest first.
    pub(super) fn of_kept(&self, records: &[Record], snapshot: &Snapshot) -> Vec<Flow> {
        // Whoever follows and says nothing of what was wants none of it.
        if self.follow && self.number == 0 && self.since.is_none() {
            return Vec::new();
        }
        let most = if self.number == 0 {
            usize::MAX
        } else {
            self.number
        };
        let wanted = |record: &Record| self.wanted(record, snapshot);
        if self.first {
            return records.iter().filter_map(wanted).take(most).collect();
        }
        let newest = records.iter().rev().filter_map(wanted).take(most);
        let mut flows: Vec<_> = newest.collect();
        flows.reverse();
        flows
    }

    /// A record as a flow, if it is wanted.
    pub(super) fn wanted(&self, record: &Record, snapshot: &Snapshot) -> Option<Flow> {
        let in_time = self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until);
        if !in_time {
            return None;
        }
        let flow = flow(record, snapshot);
        self.filters.want(&flow).then(|| self.mask.apply(flow))
    }

    /// Whether the time that is asked for was over at the time of a record.
    pub(super) fn is_over(&self, record: &Record) -> bool {
        self.until.is_some_and(|until| record.time > until)
    }
}

fn time(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, RequestError> {
    let read = |time: prost_types::Timestamp| {
        Timestamp::new(time.seconds, time.nanos).map_err(|_| RequestError::Time(field))
    };
    time.map(read).transpose()
}
