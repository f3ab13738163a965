//! The socket at which CNI plugins announce pods: whatever comes in, it is answered in the plugin's own terms, what the agent knows and
//! what it keeps for the next one stay the same, and who speaks sense is heard.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weir::cni::{Announcement, Answer, Request, Store, serve, socket};
use weir::compile::compile;
use weir::model::{Attachment, ObjectName, PodDevice, Sandbox};
use weir::plan::Planner;
use weir::state::State;
use weir_common::abi::EndpointKey;
use weir_tests::fixture::snapshot;

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest name of a file; a sandbox with a longer one is not kept for the next agent, which the log tells.
const LONGEST_NAME: usize = 255;
/// What the good pod has that nobody else has, as far as strangers know.
const GOOD: [&str; 2] = ["203.0.113.77", "2001:db8:77::77"];

/// An agent without a loop: what it hears is in force at once.
struct Agent {
    run_dir: TempDir,
    /// Serves while something is asked: a search in one thread meets the same each time.
    runtime: Runtime,
    state: Arc<Mutex<State>>,
}

thread_local! {
    static AGENT: Agent = Agent::start();
}

impl Agent {
    fn start() -> Self {
        let run_dir = tempfile::tempdir().expect("a temporary directory");
        let (path, store) = (socket(run_dir.path()), Store::new(run_dir.path()));
        let state = Arc::default();
        let heard = Arc::clone(&state);
        let answer = move |request| {
            let (state, store) = (Arc::clone(&heard), store.clone());
            async move { hear(request, &mut locked(&state), &store) }
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let within = runtime.enter();
        let listener = weir::admin::bind(&path).expect("a socket");
        drop(within);
        runtime
            .spawn(async move { serve(listener, &path, answer, CancellationToken::new()).await });
        Self {
            run_dir,
            runtime,
            state,
        }
    }

    fn store(&self) -> Store {
        Store::new(self.run_dir.path())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Sends bytes and nothing more; gives all that comes back.
    fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let exchange = async {
            let mut stream = UnixStream::connect(socket(self.run_dir.path())).await?;
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            io::Result::Ok(answer)
        };
        let exchange = async { timeout(PATIENCE, exchange).await };
        let answer = self.runtime.block_on(exchange);
        answer.expect("an end").expect("an answer")
    }

    fn ask(&self, request: &Request) -> Answer {
        let mut line = serde_json::to_vec(request).expect("JSON");
        line.push(b'\n');
        understood(&self.exchange(&line))
    }

    /// All sandboxes that are known.
    fn known(&self) -> Vec<Sandbox> {
        let state = self.state();
        let known = state.snapshot().sandboxes.values();
        known.map(|sandbox| Sandbox::clone(sandbox)).collect()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the agent's loop does, where everything is in force at once.
fn hear(request: Request, state: &mut State, store: &Store) -> Answer {
    match request {
        Request::Add(announcement) => {
            // Interfaces are numbered by their names' lengths, so that some are met twice.
            let device = announcement.interfaces.first().map(|name| PodDevice {
                ifindex: name.len().try_into().unwrap_or(u32::MAX),
                name: name.clone(),
            });
            store.announce(state, announcement.sandbox(device));
        }
        Request::Check(attachment) => {
            if !state.snapshot().sandboxes.contains_key(&attachment) {
                return Answer::Unknown;
            }
        }
        Request::Del(attachment) => {
            store.retire(state, |sandbox| sandbox.attachment == attachment);
        }
        Request::Gc { network, valid } => {
            let valid: BTreeSet<Attachment> = valid.into_iter().collect();
            store.retire(state, |sandbox| {
                sandbox.network == network && !valid.contains(&sandbox.attachment)
            });
        }
    }
    Answer::Done
}

/// An answer is one line of JSON.
fn understood(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let line = text.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "one line: {text:?}");
    serde_json::from_str(line).expect("an answer")
}

/// Each line is what a plugin says at a connection of its own.
pub(crate) fn check(bytes: &[u8]) {
    AGENT.with(|agent| {
        let _ = fs::remove_dir_all(agent.run_dir.path().join("sandboxes"));
        *agent.state() = State::new("node1");
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            check_line(agent, line);
        }
        good(agent);
    });
}

fn check_line(agent: &Agent, line: &[u8]) {
    let before = agent.known();
    let answer = understood(&agent.exchange(line));
    let known = agent.known();
    match Request::parse(line) {
        Err(error) => {
            let why = error.to_string();
            assert_eq!(answer, Answer::Waiting { why });
            assert_eq!(known, before, "by what is no request: {error}");
        }
        Ok(request) => {
            let written = serde_json::to_vec(&request).expect("JSON");
            let read = Request::parse(&written).expect("what was read before");
            assert_eq!(read, request, "read, written and read again");
            after(agent, &request, &answer, &known);
            // Every request may be made again.
            assert_eq!(agent.ask(&request), answer, "{request:?}");
            assert_eq!(agent.known(), known, "{request:?}");
        }
    }
    kept(agent, &known);
}

/// What a request says is so.
fn after(agent: &Agent, request: &Request, answer: &Answer, known: &[Sandbox]) {
    let is_known = |attachment: &Attachment| known.iter().any(|one| one.attachment == *attachment);
    match request {
        Request::Add(Announcement { attachment, .. }) => {
            assert!(is_known(attachment), "{request:?}");
        }
        Request::Check(attachment) => {
            assert_eq!(*answer == Answer::Done, is_known(attachment));
            return;
        }
        Request::Del(attachment) => assert!(!is_known(attachment), "{request:?}"),
        Request::Gc { network, valid } => {
            let others = known.iter().filter(|one| one.network == *network);
            for one in others {
                assert!(valid.contains(&one.attachment), "{one:?}");
            }
        }
    }
    assert_eq!(*answer, Answer::Done, "{request:?}");
    let state = agent.state();
    for one in known {
        assert!(one.addresses.iter().all(|ip| *ip == ip.to_canonical()));
        // Nobody has what another one has.
        let others = known.iter().filter(|other| one.replaces(other));
        assert_eq!(others.count(), 0, "{one:?} of {known:?}");
        for address in &one.addresses {
            let leads = state.snapshot().devices.devices.get(address);
            assert_eq!(leads, one.device.as_ref(), "{address}");
        }
    }
}

/// The next agent finds what this one knows, and nothing is written elsewhere.
fn kept(agent: &Agent, known: &[Sandbox]) {
    let mut kept = agent.store().load().expect("a directory");
    kept.sort_by(|a, b| a.attachment.cmp(&b.attachment));
    let has_room = |sandbox: &&Sandbox| {
        let Attachment {
            container,
            interface,
        } = &sandbox.attachment;
        container.len() + interface.len() + ":.json".len() <= LONGEST_NAME
    };
    let wanted: Vec<&Sandbox> = known.iter().filter(has_room).collect();
    assert_eq!(kept.iter().collect::<Vec<_>>(), wanted);
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.collect()
    };
    let there = names(agent.run_dir.path());
    let is_ours = |name: &String| name == "cni.sock" || name == "sandboxes";
    assert!(there.iter().all(is_ours), "{there:?}");
    let files = names(&agent.run_dir.path().join("sandboxes"));
    assert_eq!(files.len(), kept.len(), "{files:?}");
}

/// A pod that comes after all that has its programs and is isolated, as if nobody had come before.
fn good(agent: &Agent) {
    let attachment = Attachment {
        container: "zz-good".to_owned(),
        interface: "eth0".to_owned(),
    };
    let addresses: Vec<IpAddr> = GOOD.map(|ip| ip.parse().expect("an address")).into();
    let request = Request::Add(Announcement {
        attachment: attachment.clone(),
        network: "zz-pods".to_owned(),
        pod: ObjectName::new("zz-shop", "zz-good"),
        uid: "zz-uid".to_owned(),
        addresses: addresses.clone(),
        interfaces: vec!["a-veth-of-its-own".to_owned()],
        wait_milliseconds: 1000,
    });
    assert_eq!(agent.ask(&request), Answer::Done);
    assert_eq!(agent.ask(&Request::Check(attachment.clone())), Answer::Done);
    kept(agent, &agent.known());

    let mut seen = snapshot([11, 12], vec![]);
    seen.sandboxes = agent.state().snapshot().sandboxes.clone();
    let tables = compile(&seen);
    for address in addresses {
        let entry = tables
            .policies
            .endpoints
            .get(&EndpointKey::address(address.into()));
        assert!(entry.is_some(), "{address} is nobody's");
    }
    let plan = Planner::new().plan(&tables);
    assert!(plan.is_ok(), "{:?}", plan.err());

    assert_eq!(agent.ask(&Request::Del(attachment.clone())), Answer::Done);
    assert_eq!(agent.ask(&Request::Check(attachment)), Answer::Unknown);
}
