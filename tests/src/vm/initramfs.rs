//! The file system that a machine boots from: a cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

struct Entry {
    mode: u32,
    data: Vec<u8>,
    /// Major and minor number of a device.
    device: (u32, u32),
}

/// Files by path.
pub(super) struct Initramfs(BTreeMap<String, Entry>);

impl Initramfs {
    /// Nothing but the console, which the first process writes to.
    pub(super) fn new() -> Self {
        let mut files = Self(BTreeMap::new());
        files.insert(
            "/dev/console",
            Entry {
                mode: CHARACTER_DEVICE,
                data: Vec::new(),
                device: (5, 1),
            },
        );
        files
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        for (at, _) in path.match_indices('/').skip(1) {
            let directory = Entry {
                mode: DIRECTORY,
                data: Vec::new(),
                device: (0, 0),
            };
            self.0.entry(path[..at].to_owned()).or_insert(directory);
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// Adds a file of the host.
    pub(super) fn file(&mut self, path: &str, host: &Path) -> Result<()> {
        let data = fs::read(host).with_context(|| format!("read {}", host.display()))?;
        self.insert(
            path,
            Entry {
                mode: EXECUTABLE,
                data,
                device: (0, 0),
            },
        );
        Ok(())
    }

    /// Adds a script.
    pub(super) fn script(&mut self, path: &str, text: &str) {
        self.insert(
            path,
            Entry {
                mode: EXECUTABLE,
                data: text.into(),
                device: (0, 0),
            },
        );
    }

    /// Adds the shared libraries and the loader of an executable of the host.
    pub(super) fn libraries_of(&mut self, executable: &Path) -> Result<()> {
        let output = Command::new("ldd")
            .arg(executable)
            .output()
            .context("run ldd")?;
        ensure!(
            output.status.success(),
            "ldd {}: {}",
            executable.display(),
            output.status
        );
        for line in String::from_utf8(output.stdout)?.lines() {
            // name => /path (address), or the loader's path alone; the kernel's own has none.
            let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
                continue;
            };
            if !self.0.contains_key(library) {
                self.file(library, Path::new(library))?;
            }
        }
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn write(&self, archive: &Path) -> Result<()> {
        let file =
            fs::File::create(archive).with_context(|| format!("create {}", archive.display()))?;
        let mut out = BufWriter::new(file);
        // Parents sort before what they hold, which the kernel needs.
        for (number, (path, entry)) in (1..).zip(&self.0) {
            entry.write(&mut out, number, path.trim_start_matches('/'))?;
        }
        Entry {
            mode: 0,
            data: Vec::new(),
            device: (0, 0),
        }
        .write(&mut out, 0, "TRAILER!!!")?;
        out.flush().context("write the archive")
    }
}

impl Entry {
    fn write(&self, out: &mut impl Write, inode: u32, name: &str) -> Result<()> {
        let size =
            u32::try_from(self.data.len()).context("a file for an archive is limited to 4 GiB")?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (major, minor) = self.device;
        write!(out, "070701")?;
        // inode, mode, user, group, links, time, size, device of the file system, device, name's size, checksum.
        for field in [
            inode, self.mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
        ] {
            write!(out, "{field:08X}")?;
        }
        const HEADER: usize = 6 + 13 * 8;
        out.write_all(name.as_bytes())?;
        out.write_all(&[0; 4][..1 + padding(HEADER + name.len() + 1)])?;
        out.write_all(&self.data)?;
        out.write_all(&[0; 4][..padding(self.data.len())])?;
        Ok(())
    }
}

/// Bytes to the next multiple of four.
const fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}
