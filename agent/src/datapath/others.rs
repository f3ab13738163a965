//! All programs at hooks where Weir has its own, and which are Weir's. This asks the kernel, and changes nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::bpf::{self, AttachPoint};
use super::clsact::Netlink;
use super::error::{During, Result};
use super::pins;
use super::sockets::HOOKS;

/// A program at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its number in this kernel.
    pub program: u32,
    /// Its name, or its filter's, where the kernel tells.
    pub name: Option<String>,
    /// Whether it is Weir's.
    pub own: bool,
    /// What holds it there.
    pub by: Holder,
}

/// What holds a program at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A link of this number.
    Link(u32),
    /// A filter under clsact.
    Filter {
        /// Its priority.
        priority: u32,
        /// Its handle among those of that priority.
        handle: u32,
    },
    /// The hook itself, until somebody detaches it.
    Hook,
    /// The hook or a link: without CAP_SYS_ADMIN the kernel does not tell.
    Unknown,
}

/// A program for sockets of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnSockets {
    /// Name of the hook, as bpftool calls it.
    pub hook: &'static str,
    /// Directory of the cgroup that it is attached to: the one asked about, or one above.
    pub cgroup: PathBuf,
    /// The program.
    pub attached: Attached,
}

/// Tells Weir's programs from others'.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    own: BTreeSet<u32>,
}

impl Programs {
    /// Weir's own are those behind the pins of this directory; `None` where it holds none.
    ///
    /// # Errors
    /// When a pin cannot be read.
    pub fn of(directory: &Path) -> Result<Option<Self>> {
        let mut own = None;
        for version in pins::list(directory)? {
            let links = version.join("links");
            if !links.is_dir() {
                continue;
            }
            let own = own.get_or_insert_with(BTreeSet::new);
            for path in pins::list(&links)? {
                let program = bpf::open_pin(&path).and_then(|fd| bpf::link_program(fd.as_fd()));
                own.extend(program.during(|| format!("read {}", path.display()))?);
            }
        }
        Ok(own.map(|own| Self { own }))
    }

    /// Those that see what comes in by a device, and those that see what goes out by it, each in the order in which they run.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn at_device(&self, ifindex: u32) -> Result<[Vec<Attached>; 2]> {
        let at = |point| {
            self.at_point(ifindex, point)
                .during(|| format!("list the programs of device {ifindex}"))
        };
        Ok([at(AttachPoint::Ingress)?, at(AttachPoint::Egress)?])
    }

    /// The kernel runs tcx before clsact.
    fn at_point(&self, ifindex: u32, point: AttachPoint) -> io::Result<Vec<Attached>> {
        let links = bpf::tcx_programs(ifindex, point)?.into_iter();
        let links = links.map(|(program, link)| {
            let by = match link {
                0 => Holder::Hook,
                link => Holder::Link(link),
            };
            self.attached(program, by)
        });
        let filters = Netlink::open()?.programs(ifindex, point)?.into_iter();
        let filters = filters.map(|filter| {
            let (priority, handle) = (filter.priority, filter.handle);
            let found = self.attached(filter.program, Holder::Filter { priority, handle });
            Attached {
                own: filter.own,
                name: filter.name.or(found.name),
                ..found
            }
        });
        Ok(links.chain(filters).collect())
    }

    /// The one of that number at the XDP hook of a device.
    #[must_use]
    pub fn at_xdp(&self, ifindex: u32, program: u32) -> Attached {
        let by = held(|link| {
            let found = bpf::xdp_link(link).ok().flatten();
            found.is_some_and(|found| (found.ifindex, found.program) == (ifindex, program))
        });
        self.attached(program, by)
    }

    /// Those that run for sockets of a cgroup at the hooks of Weir's, by hook in the order in which they run.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn at_cgroup(&self, directory: &Path) -> Result<Vec<OnSockets>> {
        let action = || format!("list the programs of cgroup {}", directory.display());
        let open = |directory: &Path| {
            let cgroup = File::open(directory)?;
            Ok((directory.to_owned(), cgroup.metadata()?.ino(), cgroup))
        };
        let its = open(directory).during(action)?;
        // What is above the hierarchy's root is no cgroup, and not asked.
        let above = directory.ancestors().skip(1).map_while(|above| {
            let cgroup = open(above).ok()?;
            let asked = bpf::cgroup_programs(cgroup.2.as_fd(), HOOKS[0].0, true);
            asked.is_ok().then_some(cgroup)
        });
        let above: Vec<_> = above.collect();
        let mut found = Vec::new();
        for (hook, name) in HOOKS {
            for program in bpf::cgroup_programs(its.2.as_fd(), hook, false).during(action)? {
                let has = |cgroup: &File| {
                    let programs = bpf::cgroup_programs(cgroup.as_fd(), hook, true);
                    programs.is_ok_and(|programs| programs.contains(&program))
                };
                let place = above.iter().find(|(.., cgroup)| has(cgroup));
                let (cgroup, number, _) = place.filter(|_| !has(&its.2)).unwrap_or(&its);
                let by = held(|link| {
                    let found = bpf::cgroup_link(link).ok().flatten();
                    found.is_some_and(|found| {
                        (found.cgroup, found.hook, found.program) == (*number, hook as u32, program)
                    })
                });
                found.push(OnSockets {
                    hook: name,
                    cgroup: cgroup.clone(),
                    attached: self.attached(program, by),
                });
            }
        }
        Ok(found)
    }

    fn attached(&self, program: u32, by: Holder) -> Attached {
        Attached {
            program,
            name: bpf::program_name(program),
            own: self.own.contains(&program),
            by,
        }
    }
}

/// Whether a link holds a program, and which.
fn held(by: impl Fn(BorrowedFd<'_>) -> bool) -> Holder {
    match bpf::find_link(by) {
        Ok(Some(link)) => Holder::Link(link),
        Ok(None) => Holder::Hook,
        Err(_) => Holder::Unknown,
    }
}
