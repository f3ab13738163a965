//! The one loop that owns time, tasks and shutdown.
//!
//! Every task ends when the token is cancelled; none touches the kernel on its way out, so that the data plane goes on as it is.

mod adopt;
mod announcements;
mod cycle;
mod devices;
mod drift;
mod engine;
mod events;
mod flow_log;
mod flow_table;
mod health;
mod health_checks;
mod history;
mod kept_records;
mod last_known;
mod lines;
mod nets;
mod process;
mod provider;
mod queue;
mod reports;
mod rotation;
mod shared;
mod tasks;
mod top;
mod upkeep;
mod xdp;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weir_common::abi::control;

use self::cycle::Ports;
use self::engine::Engine;
use self::health_checks::HealthChecks;
use self::kept_records::KeptRecords;
use self::last_known::LastKnown;
use self::shared::Shared;
use self::tasks::Tasks;
use crate::admin;
use crate::cni;
use crate::config::{ConfigError, ForeignSources, RemovedBackends, RunConfig};
use crate::datapath::{self, EventReader, KernelDatapath, Options, SocketOptions};
use crate::flows::{FilterError, Hits};
use crate::hubble;
use crate::model::{DeviceFacts, Event, SocketLb, XdpMode};
use crate::netlink::{self, Local, Owners};
use crate::plan::{BACKENDS, Plan, Step};
use crate::source::kube::{KubeError, KubeOptions, KubeSource, Requests};
use crate::source::manifests::{ManifestError, ManifestSource};

/// Events that wait for the loop.
const EVENTS: usize = 16 * 1024;
/// Pause before netlink is asked again after an error.
const NETLINK_PAUSE: Duration = Duration::from_secs(1);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The filter of the file of flow records has no meaning.
    #[error("cannot use --flow-log-filter: {0}")]
    FlowLogFilter(#[from] FilterError),
    /// The kernel refused.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// The API server cannot be used.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The manifests cannot be used.
    #[error(transparent)]
    Manifests(#[from] ManifestError),
    /// The admin socket cannot be served.
    #[error(transparent)]
    Admin(#[from] admin::ServeError),
    /// An address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; give another address with {option}, or stop what listens there"
    )]
    Listen {
        /// The option.
        option: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// A server ended.
    #[error("cannot serve {what} any more: {source}")]
    Serve {
        /// Which.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// A task ended that should not.
    #[error("{0} ended by itself: please report this with the log")]
    Ended(&'static str),
    /// A task panicked.
    #[error("{what} ended by a bug: {source}")]
    Panic {
        /// Which.
        what: &'static str,
        /// The panic.
        source: tokio::task::JoinError,
    },
}

/// Where the objects come from.
enum Source {
    Manifests(ManifestSource),
    Kube(KubeSource),
}

impl Source {
    async fn new(config: &RunConfig) -> Result<Self, KubeError> {
        if let Some(directory) = &config.manifests {
            let mut source = ManifestSource::new(directory);
            if let Some(state_dir) = config.state_dir() {
                source = source.keep_in(state_dir);
            }
            return Ok(Self::Manifests(source));
        }
        let options = KubeOptions {
            kubeconfig: config.kubeconfig.clone(),
            api_servers: config.api_servers.clone(),
        };
        KubeSource::connect(&options).await.map(Self::Kube)
    }

    async fn run(
        self,
        events: mpsc::Sender<Event>,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        match self {
            Self::Manifests(source) => Ok(source.run(events, shutdown).await?),
            Self::Kube(source) => {
                source.run(events, shutdown).await;
                Ok(())
            }
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT. The data plane goes on without it.
///
/// # Errors
/// When it cannot start, or cannot go on. The kernel keeps what it has.
pub async fn run(config: RunConfig) -> Result<(), RunError> {
    let node = config.node_name()?;
    // Before anything is touched: a node without cgroup2 cannot run pods as the agent expects them.
    let cgroup = config.cgroup_root()?;
    let tally = Arc::default();
    let (flow_log, log_writer) = flow_log::open(&config, &tally)?.unzip();
    let source = Source::new(&config).await?;
    let (watches, requests, client) = match &source {
        Source::Kube(source) => {
            let client = Some(source.client());
            (Some(source.states()), source.requests(), client)
        }
        Source::Manifests(_) => (None, Requests::default(), None),
    };
    let health = health::bind("--healthz-address", config.healthz_address).await?;
    let metrics = health::bind("--metrics-address", config.metrics_address).await?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;

    let mut datapath = open(&config, cgroup)?;
    let packet_log = datapath.take_packet_log();
    let reader = EventReader::new(datapath.events()?).map_err(|source| RunError::Serve {
        what: "flow events",
        source,
    })?;
    let shared = Shared::new(
        node.clone(),
        datapath,
        watches,
        requests,
        tally,
        flow_log,
        Hits::new(config.event_sample, config.flow_ends > 0),
    );
    let shared = Arc::new(shared);
    let kept_records = config.state_dir().map(KeptRecords::new);
    if let Some(file) = &kept_records {
        shared.restore_records(file.load(&node));
    }
    let (checks_in, checks) = watch::channel(HealthChecks::default());
    let engine = Engine::new(
        Arc::clone(&shared),
        config.node_port_addresses.clone(),
        config.established,
        checks_in,
        cni::Store::new(&config.run_dir),
    )?;
    tracing::info!(
        node,
        bpffs = %config.bpffs.display(),
        attach = %shared.datapath().attach_mode(),
        socket_lb = %config.socket_lb,
        xdp = %config.xdp,
        "weir {} started",
        env!("CARGO_PKG_VERSION")
    );

    let (events_in, events) = mpsc::channel(EVENTS);
    let (facts_in, facts) = watch::channel(DeviceFacts::default());
    let (local, local_out) = watch::channel(Local::default());
    let mut tasks = Tasks::new();
    let token = tasks.token.clone();
    tasks.start("the source", source.run(events_in, token.clone()));
    tasks.start(
        "netlink",
        follow_netlink(local_out, facts_in, token.clone()),
    );
    tasks.start("the admin socket", {
        let (shared, shutdown) = (Arc::clone(&shared), token.clone().cancelled_owned());
        let socket = config.admin_socket();
        async move { Ok(admin::serve(&socket, shared, shutdown).await?) }
    });
    if let Some(socket) = config.hubble_socket() {
        // The data plane must not wait for what only shows it.
        match admin::bind(&socket) {
            Ok(listener) => tasks.start("Hubble's clients", {
                let (shared, token) = (Arc::clone(&shared), token.clone());
                let serving = async move { hubble::serve(listener, &socket, shared, token).await };
                served("Hubble's clients", serving)
            }),
            Err(error) => tracing::warn!(
                "Hubble's clients are not answered: {error}; or name another socket with --hubble-socket"
            ),
        }
    }
    let (asks_in, asks) = mpsc::channel(announcements::QUESTIONS);
    tasks.start("the CNI socket", {
        let socket = cni::socket(&config.run_dir);
        let listener = admin::bind(&socket)?;
        let serving = announcements::serve(
            listener,
            socket,
            asks_in,
            Arc::clone(&shared),
            token.clone(),
        );
        served("the CNI socket", serving)
    });
    tasks.start("health", {
        let serving = health::serve_health(health, Arc::clone(&shared), token.clone());
        served("health", serving)
    });
    tasks.start("health checks of Services", {
        let serving = health_checks::serve(checks, Arc::clone(&shared), token.clone());
        served("health checks of Services", serving)
    });
    if let Some(client) = client {
        let reporting = reports::report(client, Arc::clone(&shared), token.clone());
        tasks.start("reports about objects", async {
            reporting.await;
            Ok(())
        });
    }
    tasks.start("metrics", {
        let serving = health::serve_metrics(metrics, Arc::clone(&shared), token.clone());
        served("metrics", serving)
    });
    tasks.start("flow events", {
        let reading = events::read(Arc::clone(&shared), reader, token.clone());
        served("flow events", reading)
    });
    if let Some(log) = packet_log {
        let token = token.clone();
        tasks.start("the packet log", async move {
            let forwarding = async {
                tokio::select! {
                    () = token.cancelled() => Ok(()),
                    result = log.forward() => result,
                }
            };
            served("the packet log", forwarding).await
        });
    }
    tasks.start("the heartbeat", {
        let beating = upkeep::heartbeat(Arc::clone(&shared), token.clone());
        async {
            beating.await;
            Ok(())
        }
    });
    shared
        .tally
        .limit_workloads(config.workload_series as usize);
    tasks.start("the upkeep of metrics", {
        let turning = upkeep::turn_workloads(Arc::clone(&shared), token.clone());
        async {
            turning.await;
            Ok(())
        }
    });
    tasks.start("the flow table's upkeep", {
        let period = Some(config.flow_ends).filter(|seconds| *seconds > 0);
        let period = period.map(|seconds| Duration::from_secs(seconds.into()));
        let walking = flow_table::walk(Arc::clone(&shared), period, token.clone());
        async {
            walking.await;
            Ok(())
        }
    });
    tasks.start("the busiest flows", {
        let counting = top::count(Arc::clone(&shared), token.clone());
        async {
            counting.await;
            Ok(())
        }
    });
    if let Some(writer) = log_writer {
        let writing = writer.run(token.clone());
        tasks.start("the file of flow records", async {
            writing.await;
            Ok(())
        });
    }
    if let Some(file) = kept_records {
        let keeping = kept_records::keep(file, Arc::clone(&shared), token.clone());
        tasks.start("the kept flow records", async {
            keeping.await;
            Ok(())
        });
    }
    let last_known = config.state_dir().map(LastKnown::new);
    if let Some(file) = last_known.clone() {
        let keeping = last_known::keep(file, Arc::clone(&shared), token.clone());
        tasks.start("the objects' file", async {
            keeping.await;
            Ok(())
        });
    }
    let ports = Ports {
        events,
        facts,
        asks,
        local,
    };
    tasks.start("the loop", {
        let cycling = cycle::cycle(
            engine,
            last_known,
            Arc::clone(&shared),
            ports,
            token.clone(),
        );
        async {
            cycling.await;
            Ok(())
        }
    });

    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = tasks.failure() => Err(error),
    };
    tracing::info!("stopping; the data plane goes on as it is");
    tasks.stop().await;
    result
}

/// Opens the data path.
fn open(config: &RunConfig, cgroup: PathBuf) -> Result<KernelDatapath, datapath::Error> {
    let pods = match config.socket_lb {
        SocketLb::Host => Some(false),
        SocketLb::All => Some(true),
        SocketLb::None => None,
    };
    let mut datapath = KernelDatapath::open(&Options {
        bpffs: config.bpffs.clone(),
        attach: config.attach,
        flow_capacity: config.flow_capacity,
        backend_capacity: BACKENDS,
        replay: false,
        sockets: pods.map(|pods| SocketOptions { cgroup, pods }),
        xdp: config.xdp == XdpMode::Auto,
    })?;
    datapath.execute(&Plan {
        steps: vec![
            Step::Control {
                index: control::SAMPLE,
                value: config.event_sample.into(),
            },
            Step::Control {
                index: control::RESET_GONE,
                value: u64::from(config.removed_backends == RemovedBackends::Reset),
            },
            Step::Control {
                index: control::FOREIGN_SOURCES,
                value: u64::from(config.foreign_sources == ForeignSources::Judge),
            },
        ],
    })?;
    Ok(datapath)
}

fn on(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(RunError::Signals)
}

/// Adds to an I/O error which task it ended.
async fn served(
    what: &'static str,
    serving: impl Future<Output = io::Result<()>>,
) -> Result<(), RunError> {
    serving
        .await
        .map_err(|source| RunError::Serve { what, source })
}

/// Keeps following devices: what the kernel does not tell now it tells later, and until then the last facts stand.
async fn follow_netlink(
    local: watch::Receiver<Local>,
    facts: watch::Sender<DeviceFacts>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut owners = Owners::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            result = netlink::watch(local.clone(), facts.clone(), &mut owners) => {
                if let Err(error) = result {
                    tracing::warn!("cannot follow devices, trying again: {error}");
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(NETLINK_PAUSE) => {}
        }
    }
}
