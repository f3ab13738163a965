//! The agent's directory in the BPF file system, where everything lives that must survive the agent.
//!
//! ```text
//! DIR/v1/maps/flow            maps that exist once, and the roots of the others (maps of maps)
//! DIR/v1/gen0/frontend        configuration maps of a generation
//! DIR/v1/links/7_from_pod     tcx links, by interface index
//! DIR/v1/links/7_xdp_net      XDP links, by interface index
//! DIR/v1/links/connect4       links of the cgroup, by program
//! ```
//! bpffs does not allow dots in names. Reopening a map by id would need CAP_SYS_ADMIN, so inner maps are pinned too.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock, statfs};
use weir_common::abi::LAYOUT;

use super::bpf::{self, Map, Shape};
use super::error::{During, Error, Result};
use super::shapes;
use crate::plan::Table;

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where BPF file systems are mounted by convention.
pub const USUAL_MOUNT: &str = "/sys/fs/bpf";

/// The directory, held against other agents as long as this lives.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Pins {
    /// Makes the directory and takes it: two agents that share maps and links would undo each other's work.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        mount_if_needed(directory)?;
        fs::create_dir_all(directory).during(|| format!("make {}", directory.display()))?;
        let lock = Self::lock(directory)?;
        let pins = Self {
            directory: directory.to_owned(),
            _lock: lock,
        };
        for below in [
            pins.maps(),
            pins.links(),
            pins.generation(0),
            pins.generation(1),
        ] {
            fs::create_dir_all(&below).during(|| format!("make {}", below.display()))?;
        }
        Ok(pins)
    }

    /// Takes the directory if it exists, without making anything.
    pub(crate) fn take_existing(directory: &Path) -> Result<Option<Self>> {
        if !directory.exists() || !is_bpffs(directory) {
            return Ok(None);
        }
        let lock = Self::lock(directory)?;
        Ok(Some(Self {
            directory: directory.to_owned(),
            _lock: lock,
        }))
    }

    /// Locks the directory itself: bpffs holds no ordinary files. An agent that is just ending is waited for.
    fn lock(directory: &Path) -> Result<File> {
        const TRIES: u32 = 20;
        let lock = File::open(directory).during(|| format!("open {}", directory.display()))?;
        for _ in 0..TRIES {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(lock),
                Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(50)),
                Err(error) => {
                    let action = format!("lock {}", directory.display());
                    return Err(Error::kernel(action, error.into()));
                }
            }
        }
        Err(Error::SecondAgent(directory.to_owned()))
    }

    fn version(&self) -> PathBuf {
        self.directory.join(format!("v{LAYOUT}"))
    }

    fn maps(&self) -> PathBuf {
        self.version().join("maps")
    }

    /// Pin of a map that exists once.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Directory of the links' pins.
    pub(crate) fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    fn generation(&self, generation: u32) -> PathBuf {
        self.version().join(format!("gen{generation}"))
    }

    /// Checks every pinned map before the loader adopts it: aya takes whatever is there.
    pub(crate) fn check(&self) -> Result<()> {
        let roots = Table::GENERATION.map(Table::name);
        for name in shapes::SHARED.into_iter().chain(roots) {
            match self.open_map(name) {
                Ok(_) => {}
                Err(Error::Kernel { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the maps of maps that are not pinned yet, so that the loader finds them.
    ///
    /// The loader's own would have a template with type information. Kernels 5.15 to 6.1 tell a map that has it (no timer in the
    /// value: -ENOENT) from one that has not (-EINVAL), and refuse to put the agent's maps, which have none, into such a map.
    pub(crate) fn make_roots(&self) -> Result<()> {
        for table in Table::GENERATION {
            let (name, path) = (table.name(), self.map(table.name()));
            if path.exists() {
                continue;
            }
            Map::create(name, shapes::inner(table, 1), None)
                .and_then(|template| Map::create(name, shapes::root(), Some(&template)))
                .during(|| format!("create the map of maps `{name}`"))
                .and_then(|map| {
                    bpf::pin(map, &path).during(|| format!("pin {}", path.display()))
                })?;
        }
        Ok(())
    }

    /// Opens a map that exists once.
    pub(crate) fn open_map(&self, name: &str) -> Result<Map> {
        let (mut expected, fixed) = shapes::shared(name)
            .ok_or_else(|| Error::BadObject(format!("there is no map `{name}`")))?;
        let path = self.map(name);
        let map = open(&path)?;
        if !fixed {
            expected.entries = map.shape().entries;
        }
        checked(map, expected, path)
    }

    /// Opens a generation's map of a table; `None` when there is none.
    pub(crate) fn open_inner(&self, generation: u32, table: Table) -> Result<Option<Map>> {
        let path = self.generation(generation).join(table.name());
        if !path.exists() {
            return Ok(None);
        }
        let map = open(&path)?;
        let expected = shapes::inner(table, map.shape().entries);
        checked(map, expected, path).map(Some)
    }

    /// Pins a generation's map of a table.
    pub(crate) fn pin_inner(&self, generation: u32, table: Table, map: &Map) -> Result<()> {
        let path = self.generation(generation).join(table.name());
        bpf::pin(map, &path).during(|| format!("pin {}", path.display()))
    }

    /// Removes all pins of a generation.
    pub(crate) fn clear_generation(&self, generation: u32) -> Result<()> {
        let directory = self.generation(generation);
        for entry in list(&directory)? {
            remove(&entry)?;
        }
        Ok(())
    }

    /// Removes the whole directory. What is not a pin or directory of ours by its name stays, and keeps its directories.
    pub(crate) fn remove_all(self) -> Result<()> {
        let mut directories = vec![self.directory.clone()];
        for version in list(&self.directory)? {
            if !is_version(&version) {
                continue;
            }
            directories.push(version.clone());
            for group in list(&version)? {
                for pin in list(&group)? {
                    remove(&pin)?;
                }
                directories.push(group);
            }
        }
        for directory in directories.into_iter().rev() {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                // A mount point, which is the operator's.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                result => result.during(|| format!("remove {}", directory.display()))?,
            }
        }
        Ok(())
    }
}

/// Whether this is a directory of some layout version, also another one's.
fn is_version(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str()?.strip_prefix('v')?.parse::<u32>().ok())
        .is_some()
}

/// Entries of a directory; none where it does not exist.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.during(|| format!("list {}", directory.display())),
    }
}

/// Removes a pin; that it is not there is no error.
pub(crate) fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.during(|| format!("remove {}", pin.display())),
    }
}

fn open(path: &Path) -> Result<Map> {
    bpf::open_pin(path)
        .and_then(Map::from_fd)
        .map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput => Error::ForeignPin {
                path: path.to_owned(),
                found: "something that is no map".to_owned(),
                expected: "a map".to_owned(),
            },
            _ => Error::kernel(format!("open {}", path.display()), source),
        })
}

fn checked(map: Map, expected: Shape, path: PathBuf) -> Result<Map> {
    let found = map.shape();
    if found == expected {
        Ok(map)
    } else {
        Err(Error::ForeignPin {
            path,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|statistics| {
        #[allow(
            clippy::unnecessary_cast,
            reason = "the field's type differs between architectures"
        )]
        let magic = statistics.f_type as i64;
        magic & 0xffff_ffff == BPF_FS_MAGIC
    })
}

/// Makes sure that the directory is, or will be, in a BPF file system; mounts one at the usual place if it may.
fn mount_if_needed(directory: &Path) -> Result<()> {
    let existing = directory.ancestors().find(|path| path.exists());
    if existing.is_some_and(is_bpffs) {
        return Ok(());
    }
    let usual = Path::new(USUAL_MOUNT);
    if existing == Some(usual) && mount(usual).is_ok() {
        return Ok(());
    }
    let mount = if directory.starts_with(usual) {
        usual
    } else {
        directory
    };
    Err(Error::MissingBpffs {
        directory: directory.to_owned(),
        mount: mount.to_owned(),
    })
}

/// Mounts a BPF file system at `at` unless one is there already; whether it did.
///
/// # Errors
/// The directory is not there, or mounting is not allowed (it takes CAP_SYS_ADMIN).
pub fn mount_bpffs(at: &Path) -> Result<bool> {
    if is_bpffs(at) {
        return Ok(false);
    }
    mount(at).during(|| format!("mount a BPF file system at {}", at.display()))?;
    Ok(true)
}

fn mount(at: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let at = std::ffi::CString::new(at.as_os_str().as_bytes())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all strings end with a NUL and live through the call; bpffs takes no data.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            at.as_ptr(),
            c"bpf".as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
