//! A real control plane: etcd, kube-apiserver and kube-controller-manager in a network namespace of their own.
//!
//! For suites without kubelets ([`Nodes::Written`]) there is no scheduler either: tests write Nodes and Pods, with their
//! status, as [`crate::topology::Pod::object`] makes them, and the real controllers make EndpointSlices of them.

mod arguments;
mod binaries;
pub(crate) mod pki;
mod publish;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tempfile::TempDir;

pub use binaries::{Binaries, binaries};
pub use publish::{publish, publish_pod};

use crate::netns::{Place, unique_name};
use crate::process::Process;
use crate::supervised::Supervised;
use crate::topology::{Host, Topology};
use pki::Pki;

/// How long a program may take to be ready on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// The name of its process.
const APISERVER: &str = "kube-apiserver";

/// Who says which nodes and pods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// Tests write them.
    Written,
    /// Kubelets and a scheduler do.
    Real,
}

/// A running control plane; its processes, files and namespace end with this value.
pub struct ControlPlane {
    // Fields drop in this order.
    scheduler: Option<Supervised>,
    controller_manager: Supervised,
    apiserver: Process,
    etcd: Process,
    apiserver_program: PathBuf,
    apiserver_args: Vec<String>,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    server: String,
    pki: Pki,
    dir: TempDir,
    host: Host,
}

impl ControlPlane {
    /// Starts a control plane that only threads and processes in its own namespace can reach.
    ///
    /// Builds the programs first where the cache has none (see [`binaries`]).
    pub fn start() -> Result<Self> {
        Self::start_in(Host::alone("control-plane")?, Nodes::Written)
    }

    /// Starts a control plane that the nodes of `topology` reach at [`Self::server`].
    pub fn start_on(topology: &mut Topology) -> Result<Self> {
        Self::start_in(topology.control_plane_host()?, Nodes::Written)
    }

    /// Starts a control plane on `host`.
    pub(crate) fn start_in(host: Host, nodes: Nodes) -> Result<Self> {
        let programs = binaries()?;
        let dir = tempfile::Builder::new()
            .prefix(&unique_name("control-plane"))
            .tempdir()?;
        let pki = Pki::new(&dir.path().join("pki"))?;
        let server = format!("https://{}:6443", host.addresses().v4);
        let kubeconfig = pki.kubeconfig(&server, "admin", Some("system:masters"))?;
        let launch = |name: &str, program: &Path, args: Vec<String>| {
            launch(host.as_ref(), dir.path(), name, program, args)
        };
        let etcd = launch("etcd", &programs.etcd, arguments::etcd(dir.path()))?;
        let apiserver_args = arguments::apiserver(dir.path(), &host, &pki, nodes)?;
        let apiserver = launch(APISERVER, &programs.apiserver, apiserver_args.clone())?;
        let args = arguments::controller_manager(&kubeconfig, &pki, nodes);
        // It retries until the API server answers, so it may start at once.
        let controller_manager = launch(
            "kube-controller-manager",
            &programs.controller_manager,
            args,
        )?;
        let scheduler = match nodes {
            Nodes::Written => None,
            Nodes::Real => {
                let user = pki.kubeconfig(&server, "system:kube-scheduler", None)?;
                let program = crate::lab::programs()?.join("kube-scheduler");
                Some(launch(
                    "kube-scheduler",
                    &program,
                    arguments::scheduler(&user),
                )?)
            }
        };
        let kubectl = programs.kubectl;
        let mut this = Self {
            scheduler: scheduler.map(Supervised::new),
            controller_manager: Supervised::new(controller_manager),
            apiserver,
            etcd,
            apiserver_program: programs.apiserver,
            apiserver_args,
            kubectl,
            kubeconfig,
            server,
            pki,
            dir,
            host,
        };
        this.wait_ready()?;
        Ok(this)
    }

    /// The API server's address, as in a kubeconfig.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig file of a user who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes the kubeconfig file of a user who may do what RBAC allows that user and that group.
    pub fn kubeconfig_of(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        self.pki.kubeconfig(&self.server, user, group)
    }

    /// A client that may do everything. Use it on threads that are in this place, or in a node of the topology.
    ///
    /// # Errors
    /// The kubeconfig cannot be read. The API server is not asked.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// Runs `f` with a client, in a runtime on a thread inside the control plane's namespace, to its end.
    pub fn block_on<T: Send, F: Future<Output = Result<T>>>(
        &self,
        f: impl FnOnce(Client) -> F + Send,
    ) -> Result<T> {
        block_on(self.as_ref(), &self.kubeconfig, f)
    }

    /// `kubectl` of the same release with the administrator's kubeconfig, to run inside the namespace.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let place: &Place = self.as_ref();
        let mut command = place.command(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// The program that [`Self::kubectl`] runs.
    #[must_use]
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// Ends the API server as a crash does. (An orderly end takes a minute.)
    pub fn stop_apiserver(&mut self) -> Result<()> {
        self.clients().for_each(Supervised::server_leaves);
        self.apiserver.kill()
    }

    /// Starts the API server again, killing it first where it still runs, and waits until it is ready.
    pub fn restart_apiserver(&mut self) -> Result<()> {
        self.stop_apiserver()?;
        self.apiserver.restart()?;
        self.wait_ready()
    }

    /// The same, with further arguments from now on.
    pub fn restart_apiserver_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.stop_apiserver()?;
        let more = arguments.iter().map(|&argument| argument.to_owned());
        self.apiserver_args.extend(more);
        self.apiserver = launch(
            self.host.as_ref(),
            self.dir.path(),
            APISERVER,
            &self.apiserver_program,
            self.apiserver_args.clone(),
        )?;
        self.wait_ready()
    }

    /// The directory of the programs' log files (`NAME.log`).
    #[must_use]
    pub fn logs(&self) -> &Path {
        self.dir.path()
    }

    /// What service accounts have asked the API server for: a file of audit events (`audit.k8s.io/v1`), one a line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.dir.path().join(arguments::AUDIT_LOG)
    }

    /// Checks that nothing has ended by itself, but for clients of the API server that missed something in its absence.
    pub fn ensure_running(&mut self) -> Result<()> {
        self.etcd.ensure_running()?;
        self.apiserver.ensure_running()?;
        self.clients().try_for_each(Supervised::ensure_running)
    }

    /// What may end when the API server goes away: a scheduler that missed a change does, on purpose.
    fn clients(&self) -> impl Iterator<Item = &Supervised> {
        self.scheduler.iter().chain([&self.controller_manager])
    }

    /// What signs for users and servers of this control plane.
    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Waits until the API server calls itself ready and holds the namespaces it makes itself.
    fn wait_ready(&mut self) -> Result<()> {
        let (place, kubeconfig) = (AsRef::<Place>::as_ref(&self.host), &self.kubeconfig);
        self.apiserver.wait_until(START_LIMIT, || {
            block_on(place, kubeconfig, is_ready).is_ok()
        })?;
        self.clients().for_each(Supervised::server_is_back);
        self.ensure_running()
    }
}

impl AsRef<Place> for ControlPlane {
    fn as_ref(&self) -> &Place {
        self.host.as_ref()
    }
}

/// Starts a program at a place, with its log in `dir`.
fn launch(
    place: &Place,
    dir: &Path,
    name: &str,
    program: &Path,
    args: Vec<String>,
) -> Result<Process> {
    let (place, program) = (place.clone(), program.to_owned());
    let log = dir.join(name).with_extension("log");
    Process::start(name, &log, move || {
        let mut command = place.command(&program);
        command.args(&args);
        command
    })
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the test's kubeconfig")?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Client::try_from(config).context("make a client from the test's kubeconfig")
}

fn block_on<T: Send, F: Future<Output = Result<T>>>(
    place: &Place,
    kubeconfig: &Path,
    f: impl FnOnce(Client) -> F + Send,
) -> Result<T> {
    place.run(|| {
        // Sockets belong to the namespace of the thread that opens them, so the runtime may have no other threads.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { f(client(kubeconfig).await?).await })
    })
}

async fn is_ready(client: Client) -> Result<()> {
    client.request_text(http_get("/readyz")?).await?;
    Api::<NamespaceObject>::all(client).get("default").await?;
    Ok(())
}

fn http_get(path: &str) -> Result<hyper::Request<Vec<u8>>> {
    Ok(hyper::Request::get(path).body(Vec::new())?)
}
