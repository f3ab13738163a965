//! Processes that tests start: inside a [`Place`](crate::netns::Place), logged to files, never outliving the test.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::process::set_parent_process_death_signal;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// How much of a log failure output shows, in lines.
const TAIL: usize = 60;

/// Held while a process starts: from fork to exec it has copies of all open files.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process that ends by itself soon.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// A socket that is closed when this is dropped, and not only once a process that another thread is just starting
/// has given up its copy; until then the port would be in use, and a connected UDP socket would take answers.
pub(crate) struct Sole<T>(Option<T>);

impl<T> Sole<T> {
    pub(crate) fn new(socket: T) -> Self {
        Self(Some(socket))
    }
}

impl<T> Deref for Sole<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("only dropping takes the socket out")
    }
}

impl<T> Drop for Sole<T> {
    fn drop(&mut self) {
        let _none_starts = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        self.0 = None;
    }
}

/// Makes the process of `command` enter a network namespace and a cgroup before its program starts.
pub(crate) fn move_into(command: &mut Command, netns: Arc<File>, cgroup: Option<&Path>) {
    let procs = cgroup.map(|dir| File::options().write(true).open(dir.join("cgroup.procs")));
    let enter = move || {
        match &procs {
            // "0" stands for the writer itself.
            Some(Ok(procs)) => drop(rustix::io::write(procs, b"0")?),
            Some(Err(error)) => return Err(io::Error::from(error.kind())),
            None => {}
        }
        Ok(setns(&*netns, CloneFlags::CLONE_NEWNET)?)
    };
    // SAFETY: between fork and exec this only makes system calls on files opened before, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// Makes the process of `command` join cgroups by their `cgroup.procs` files, before its program starts.
///
/// Where the files could not be opened, starting it fails with that error.
pub(crate) fn join(command: &mut Command, procs: Result<Vec<File>>) {
    let procs = procs.map_err(|error| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        kind.unwrap_or(io::ErrorKind::Other)
    });
    let enter = move || match &procs {
        // "0" stands for the writer itself.
        Ok(procs) => {
            for procs in procs {
                rustix::io::write(procs, b"0")?;
            }
            Ok(())
        }
        Err(kind) => Err(io::Error::from(*kind)),
    };
    // SAFETY: between fork and exec this only makes system calls on files opened before, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// Starts `command` so that the kernel kills its process when the test process ends, however it ends.
///
/// The kernel ties that to the thread which forked, so one thread that lives as long as the process forks them all.
fn spawn(mut command: Command) -> Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (jobs, todo) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, done) in todo {
                // A caller that went away has no use for the answer.
                let _ = done.send(start(&mut command));
            }
        });
        jobs
    });
    let die_with_parent = || {
        Ok(set_parent_process_death_signal(Some(
            rustix::process::Signal::KILL,
        ))?)
    };
    // SAFETY: between fork and exec this makes one system call, and allocates nothing.
    unsafe { command.pre_exec(die_with_parent) };
    let (done, child) = channel();
    let gone = "the thread that starts processes is gone";
    SPAWNER.send((command, done)).ok().context(gone)?;
    Ok(child.recv().context(gone)??)
}

/// A process that can be stopped and started again, with its output in a log file; ends with this value.
pub struct Process {
    name: String,
    log: PathBuf,
    prepare: Recipe,
    child: Child,
    status: Option<ExitStatus>,
}

/// Makes the command of each start.
type Recipe = Box<dyn Fn() -> Command + Send + Sync>;

impl Process {
    /// Starts what `prepare` describes; standard output and error are appended to `log`.
    pub fn start(
        name: &str,
        log: &Path,
        prepare: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Result<Self> {
        let prepare: Recipe = Box::new(prepare);
        let child = launch(name, log, &prepare)?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            prepare,
            child,
            status: None,
        })
    }

    /// The process id of the latest start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far, over all starts.
    #[must_use]
    pub fn logs(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("cannot read {}: {error}", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// How the process ended, or nothing while it runs.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .with_context(|| format!("ask after {}", self.name))?;
        }
        Ok(self.status)
    }

    /// Sends a signal; an ended process gets none.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        // Not reaped yet, so the id is still this child's.
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The process still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {limit:?}", self.name);
            }
            thread::sleep(POLL);
        }
    }

    /// SIGKILL, to the children that it started too: nobody gets a chance to clean up.
    pub fn kill(&mut self) -> Result<()> {
        if self.exit_status()?.is_none() {
            // Not reaped yet, so the group is still this child's.
            let group = Pid::from_raw(self.pid().cast_signed());
            killpg(group, Signal::SIGKILL).with_context(|| format!("kill {}", self.name))?;
        }
        self.wait(Duration::from_secs(10)).map(drop)
    }

    /// SIGTERM, and waits at most `limit` for an orderly end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Starts the same command again, killing the process first where it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.child = launch(&self.name, &self.log, &self.prepare)?;
        self.status = None;
        Ok(())
    }

    /// Checks that the process has not ended.
    ///
    /// # Errors
    /// It has; the error shows how, and the end of the log.
    pub fn ensure_running(&mut self) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            bail!("{} has ended ({status}):\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// The process ends before that, or `limit` is over; the error shows the end of the log.
    pub fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            self.ensure_running()?;
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {limit:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The last lines of the log.
    fn tail(&self) -> String {
        let logs = self.logs();
        let lines: Vec<_> = logs.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("process is left behind: {error:#}");
        }
        if thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.name, self.tail());
        }
    }
}

fn launch(name: &str, log: &Path, prepare: &Recipe) -> Result<Child> {
    let output = OpenOptions::new().create(true).append(true).open(log);
    let output = output.with_context(|| format!("open the log {}", log.display()))?;
    let mut command = prepare();
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let shown = format!("{command:?}");
    spawn(command).with_context(|| format!("start {name}: {shown}"))
}
