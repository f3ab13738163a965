//! Virtual machines with other kernels: one boots from memory, runs executables as root, and is gone.
//!
//! They are emulated, which needs no privilege and no /dev/kvm, and runs one to two orders of magnitude slower than the machine.

mod debian;
mod initramfs;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::Process;
use initramfs::Initramfs;

pub use debian::{Kernel, kernel};

const QEMU: &str = "qemu-system-x86_64";
/// Programs of the host that tests call.
const TOOLS: [&str; 2] = ["ip", "tc"];
/// How the machine says on its console that an executable has ended, before its name and exit status.
const ENDED: &str = "=== ended";

/// What a machine does once it is up.
#[derive(Debug)]
pub struct Job {
    /// Run one after the other.
    pub executables: Vec<PathBuf>,
    /// Given to each.
    pub arguments: Vec<String>,
    /// Environment of each.
    pub environment: Vec<(String, String)>,
    /// More files, at these paths of the machine.
    pub files: Vec<(PathBuf, String)>,
}

/// What an executable printed, and its exit status.
#[derive(Debug)]
pub struct Output {
    /// File name of the executable.
    pub name: String,
    /// Standard output and error.
    pub text: String,
    /// Exit status as the shell tells it.
    pub status: i32,
}

/// The programs that virtual machines need and this host has not.
#[must_use]
pub fn missing_programs() -> Vec<&'static str> {
    let needed = [QEMU, "busybox", "strip", "ldd"].into_iter().chain(TOOLS);
    needed.filter(|name| which(name).is_err()).collect()
}

/// Boots a kernel, runs the job, and returns what each executable had to say.
///
/// # Errors
/// The machine did not end within `limit`, or before it had run everything; the error holds the end of its console.
pub fn run(kernel: &Kernel, job: &Job, limit: Duration) -> Result<Vec<Output>> {
    let directory = tempfile::tempdir()?;
    let initrd = directory.path().join("initrd");
    let console = directory.path().join("console");
    pack(kernel, job, directory.path())?.write(&initrd)?;
    let image = kernel.image();
    let mut machine = Process::start("virtual machine", &console, move || {
        let mut qemu = Command::new(QEMU);
        qemu.args(
            "-accel tcg -cpu max -m 1536 -smp 1 -nodefaults -display none -serial stdio -no-reboot"
                .split(' '),
        )
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(&image)
        .arg("-initrd")
        .arg(&initrd);
        qemu
    })?;
    let ended = machine.wait(limit);
    let text = machine.logs().replace('\r', "");
    let tail = || {
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    };
    let status =
        ended.with_context(|| format!("console of Linux {}:\n{}", kernel.release, tail()))?;
    let outputs = outputs(&text);
    ensure!(
        status.success() && outputs.len() == job.executables.len(),
        "the machine with Linux {} ended ({status}) after {} of {} executables; its console:\n{}",
        kernel.release,
        outputs.len(),
        job.executables.len(),
        tail()
    );
    ensure!(
        !text.contains("[ cut here ]") && !text.contains("BUG:"),
        "Linux {} complained:\n{}",
        kernel.release,
        tail()
    );
    Ok(outputs)
}

/// Cuts a console's text into what each executable printed.
fn outputs(console: &str) -> Vec<Output> {
    let mut outputs = Vec::new();
    let mut text = String::new();
    for line in console.lines() {
        let Some(end) = line.strip_prefix(ENDED) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let mut words = end.split_whitespace();
        if let (Some(name), Some(Ok(status))) = (words.next(), words.next().map(str::parse)) {
            outputs.push(Output {
                name: name.to_owned(),
                text: std::mem::take(&mut text),
                status,
            });
        }
    }
    outputs
}

fn pack(kernel: &Kernel, job: &Job, scratch: &Path) -> Result<Initramfs> {
    let mut files = Initramfs::new();
    files.file("/bin/busybox", &which("busybox")?)?;
    for name in TOOLS {
        let program = which(name)?;
        files.libraries_of(&program)?;
        files.file(&format!("/tools/{name}"), &program)?;
    }
    for module in &kernel.modules {
        files.file(&format!("/modules/{}", name_of(module)?), module)?;
    }
    let mut run = String::new();
    for executable in &job.executables {
        files.libraries_of(executable)?;
        let name = name_of(executable)?;
        // Debug information would be most of the machine's memory.
        let stripped = scratch.join(&name);
        let status = Command::new("strip")
            .arg("-o")
            .arg(&stripped)
            .arg(executable)
            .status()
            .context("run strip")?;
        ensure!(status.success(), "strip {}: {status}", executable.display());
        files.file(&format!("/run/{name}"), &stripped)?;
        let arguments = job.arguments.join(" ");
        run.push_str(&format!(
            "/run/{name} {arguments}\necho \"{ENDED} {name} $?\"\n"
        ));
    }
    for (file, path) in &job.files {
        files.file(path, file)?;
    }
    let environment: String = job
        .environment
        .iter()
        .map(|(name, value)| format!("export {name}='{value}'\n"))
        .collect();
    let modules: String = kernel
        .modules
        .iter()
        .map(|module| Ok(format!("insmod /modules/{}\n", name_of(module)?)))
        .collect::<Result<_>>()?;
    let init = format!(
        "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /root
/bin/busybox --install -s /bin
export PATH=/tools:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
{modules}{environment}exec 2>&1
{run}dmesg | grep -A 40 -e 'cut here' -e 'BUG:'
reboot -f
"
    );
    files.script("/init", &init);
    Ok(files)
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name
        .with_context(|| format!("{} has no name", path.display()))?
        .to_owned())
}

fn which(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(name));
    candidates
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("there is no {name} on PATH"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_cut_by_executable() {
        let console = "boot\nrunning\n=== ended a-1 0\nmore\n=== ended b-2 101\ncut of";
        let outputs = outputs(console);
        let seen: Vec<_> = outputs
            .iter()
            .map(|output| (&*output.name, &*output.text, output.status))
            .collect();
        assert_eq!(
            seen,
            [("a-1", "boot\nrunning\n", 0), ("b-2", "more\n", 101)]
        );
    }
}
