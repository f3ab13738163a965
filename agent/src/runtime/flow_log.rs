//! The file that flow records are written to (`--flow-log`). Nothing waits for it: what it cannot take is counted.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rotation::Rotating;
use crate::admin;
use crate::config::RunConfig;
use crate::flows::{Filter, FilterError, Record};
use crate::metrics::Tally;

/// Lines that may wait to be written.
const WAITING: usize = 16 * 1024;
/// Lines written at once.
const AT_ONCE: usize = 1024;

/// Where records go in.
#[derive(Debug)]
pub(super) struct FlowLog {
    filter: Filter,
    lines: mpsc::Sender<Vec<u8>>,
    file: String,
    /// Why the file takes nothing at the moment.
    error: Arc<Mutex<Option<String>>>,
    tally: Arc<Tally>,
}

/// Where they come out.
#[derive(Debug)]
pub(super) struct Writer {
    lines: mpsc::Receiver<Vec<u8>>,
    file: Rotating,
    error: Arc<Mutex<Option<String>>>,
    tally: Arc<Tally>,
}

/// The file that the configuration names, if it does. The file itself is not touched yet.
pub(super) fn open(
    config: &RunConfig,
    tally: &Arc<Tally>,
) -> Result<Option<(FlowLog, Writer)>, FilterError> {
    let filter = config.flow_log_filter.as_deref().unwrap_or_default();
    let filter = filter.parse()?;
    let Some(path) = config.flow_log.clone() else {
        if config.flow_log_filter.is_some() {
            tracing::warn!("--flow-log-filter does nothing without --flow-log");
        }
        return Ok(None);
    };
    let most = u64::from(config.flow_log_size) * 1_000_000;
    let file = Rotating::new(path, most, config.flow_log_files);
    Ok(Some(channel(filter, file, tally, WAITING)))
}

fn channel(
    filter: Filter,
    file: Rotating,
    tally: &Arc<Tally>,
    waiting: usize,
) -> (FlowLog, Writer) {
    let (lines_in, lines) = mpsc::channel(waiting);
    let error = Arc::default();
    let log = FlowLog {
        filter,
        lines: lines_in,
        file: file.path().display().to_string(),
        error: Arc::clone(&error),
        tally: Arc::clone(tally),
    };
    let writer = Writer {
        lines,
        file,
        error,
        tally: Arc::clone(tally),
    };
    (log, writer)
}

impl FlowLog {
    /// Has a record written, if it is wanted and there is room to wait.
    pub(super) fn write(&self, record: &Record) {
        if !self.filter.matches(record) {
            return;
        }
        // Plain structs with names for keys are always JSON.
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        if self.lines.try_send(line).is_err() {
            self.tally.logged(0, 1);
        }
    }

    /// For `weir status`.
    pub(super) fn state(&self) -> admin::FlowLog {
        let counts = self.tally.flow_log();
        admin::FlowLog {
            file: self.file.clone(),
            written: counts.written,
            lost: counts.lost,
            error: lock(&self.error).clone(),
        }
    }
}

impl Writer {
    /// Writes until told to stop, and then what waits.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let stopped = tokio::select! {
                _ = self.lines.recv_many(&mut batch, AT_ONCE) => false,
                () = shutdown.cancelled() => {
                    self.lines.close();
                    self.lines.recv_many(&mut batch, WAITING).await;
                    true
                }
            };
            tokio::task::block_in_place(|| self.append(&batch));
            // No line, and there will be none.
            if stopped || batch.is_empty() {
                return;
            }
            batch.clear();
        }
    }

    fn append(&self, lines: &[Vec<u8>]) {
        let result = self.file.append(lines);
        let written = result
            .as_ref()
            .map_or_else(|(done, _)| *done, |()| lines.len());
        self.tally
            .logged(written as u64, (lines.len() - written) as u64);
        let mut failing = lock(&self.error);
        let file = self.file.path().display();
        match result {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::info!("flow records are written to {file} again");
                }
            }
            Err((_, error)) => {
                let error = error.to_string();
                if failing.is_none() {
                    tracing::warn!(
                        "cannot write flow records to {file}: {error}; they are lost until that is mended (weir_flow_log_lost_total)"
                    );
                }
                *failing = Some(error);
            }
        }
    }
}

fn lock(error: &Mutex<Option<String>>) -> std::sync::MutexGuard<'_, Option<String>> {
    // The text is whole after every step.
    error.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::flows::tests::{ended, event, record};
    use crate::metrics::Logged;

    const fn logged(written: u64, lost: u64) -> Logged {
        Logged { written, lost }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn wanted_records_are_lines_of_json_also_the_last_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.jsonl");
        let tally = Arc::default();
        let file = Rotating::new(path.clone(), 1_000_000, 2);
        let filter = "--verdict ended".parse().unwrap();
        let (log, writer) = channel(filter, file, &tally, WAITING);
        for record in [record(&event()), ended(), record(&event()), ended()] {
            log.write(&record);
        }
        let stopped = CancellationToken::new();
        stopped.cancel();
        writer.run(stopped).await;
        let text = fs::read_to_string(path).unwrap();
        let records: Vec<Record> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(records, [ended(), ended()]);
        assert_eq!(tally.flow_log(), logged(2, 0));
    }

    #[test]
    fn what_finds_no_room_or_no_file_is_counted_and_nobody_waits() {
        let tally = Arc::default();
        let file = Rotating::new("/dev/full".into(), 1_000_000, 2);
        let (log, mut writer) = channel(Filter::default(), file, &tally, 3);
        for _ in 0..5 {
            log.write(&ended());
        }
        assert_eq!(tally.flow_log(), logged(0, 2), "no room");
        let mut waiting = Vec::new();
        while let Ok(line) = writer.lines.try_recv() {
            waiting.push(line);
        }
        writer.append(&waiting);
        assert_eq!(log.state().lost, 5);
        let error = log.state().error.unwrap();
        assert!(error.contains("No space left"), "{error}");
        // There is room again.
        let dir = tempfile::tempdir().unwrap();
        writer.file = Rotating::new(dir.path().join("flows.jsonl"), 1_000_000, 2);
        writer.append(&waiting);
        assert_eq!((log.state().written, log.state().error), (3, None));
    }
}
