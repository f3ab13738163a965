//! Maps as bytes: sizes are checked here against what the kernel says, so that the methods are safe.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::object::{self, Info};
use super::{Command, address, bpf, bpf_fd};

/// Map types (`enum bpf_map_type`).
pub(crate) mod map_type {
    #![allow(missing_docs, reason = "the kernel's names")]
    pub(crate) const HASH: u32 = 1;
    pub(crate) const ARRAY: u32 = 2;
    pub(crate) const PERCPU_ARRAY: u32 = 6;
    pub(crate) const LRU_HASH: u32 = 9;
    pub(crate) const LPM_TRIE: u32 = 11;
    pub(crate) const ARRAY_OF_MAPS: u32 = 12;
    pub(crate) const SK_STORAGE: u32 = 24;
    pub(crate) const RINGBUF: u32 = 27;
}

/// What a map looks like to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `enum bpf_map_type`.
    pub(crate) kind: u32,
    /// Bytes of a key.
    pub(crate) key: u32,
    /// Bytes of a value.
    pub(crate) value: u32,
    /// Most elements.
    pub(crate) entries: u32,
    /// `BPF_F_*`.
    pub(crate) flags: u32,
}

impl Shape {
    /// Flag: elements are allocated when inserted.
    pub(crate) const NO_PREALLOC: u32 = 1 << 0;
    /// Flag: an array may be mapped into memory.
    pub(crate) const MMAPABLE: u32 = 1 << 10;
    /// Flag: an array inside a map of maps may differ in size from the others.
    pub(crate) const INNER: u32 = 1 << 12;
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            key,
            value,
            entries,
            flags,
        } = self;
        write!(
            f,
            "a map of type {kind} with keys of {key} bytes, values of {value} bytes, {entries} entries, flags {flags:#x}"
        )
    }
}

#[repr(C)]
struct CreateAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map_fd: i32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct ElementAttributes {
    map_fd: i32,
    reserved: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: i32,
    element_flags: u64,
    flags: u64,
}

/// A map of the kernel.
#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    shape: Shape,
    /// Bytes of a value as bpf(2) transfers it: all CPUs' values for a per-CPU map.
    stride: usize,
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Map {
    /// Makes a map. `name` is for people (bpftool) and cut to 15 bytes; `inner` is the template of a map of maps.
    pub(crate) fn create(name: &str, shape: Shape, inner: Option<&Self>) -> io::Result<Self> {
        let mut attributes = CreateAttributes {
            kind: shape.kind,
            key_size: shape.key,
            value_size: shape.value,
            max_entries: shape.entries,
            flags: shape.flags,
            inner_map_fd: inner.map_or(0, |map| map.fd.as_raw_fd()),
            numa_node: 0,
            name: [0; 16],
        };
        for (to, from) in attributes.name[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: MAP_CREATE's layout, without addresses.
        let fd = unsafe { bpf_fd(Command::MapCreate, &mut attributes)? };
        Self::from_fd(fd)
    }

    /// Takes a descriptor of a map; one of something else gives `InvalidInput`.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if object::type_of(fd.as_fd())? != object::TypeOf::Map {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a map"));
        }
        let info: MapInfo = object::info(fd.as_fd())?;
        let shape = Shape {
            kind: info.kind,
            key: info.key_size,
            value: info.value_size,
            entries: info.max_entries,
            flags: info.flags,
        };
        let value = shape.value as usize;
        let stride = if shape.kind == map_type::PERCPU_ARRAY {
            value.next_multiple_of(8) * possible_cpus()?
        } else {
            value
        };
        Ok(Self { fd, shape, stride })
    }

    /// The same map by a descriptor of its own.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            ..*self
        })
    }

    /// The map's description.
    pub(crate) const fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of a value as `lookup` fills it.
    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }

    /// Inserts or replaces one element.
    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key.len(), value.len(), 1)?;
        let mut attributes = self.element(key, address(value.as_ptr()));
        // SAFETY: key and value have the map's sizes.
        unsafe { bpf(Command::MapUpdate, &mut attributes) }.map(drop)
    }

    /// Inserts one element; `false` when there is one.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<bool> {
        const NO_EXIST: u64 = 1;
        self.check(key.len(), value.len(), 1)?;
        let mut attributes = self.element(key, address(value.as_ptr()));
        attributes.flags = NO_EXIST;
        // SAFETY: key and value have the map's sizes.
        match unsafe { bpf(Command::MapUpdate, &mut attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            done => done.map(|_| true),
        }
    }

    /// Puts `inner` into slot `index` of a map of maps. When this returns, no program sees the map that was there before.
    pub(crate) fn update_inner(&self, index: u32, inner: &Self) -> io::Result<()> {
        self.update(&index.to_ne_bytes(), &inner.fd.as_raw_fd().to_ne_bytes())
    }

    /// Inserts or replaces `count` elements in order. An error comes with the number of elements done before it.
    pub(crate) fn update_batch(
        &self,
        keys: &[u8],
        values: &[u8],
        count: u32,
    ) -> Result<(), (u32, io::Error)> {
        self.check(keys.len(), values.len(), count as usize)
            .map_err(|error| (0, error))?;
        let mut attributes = BatchAttributes {
            in_batch: 0,
            out_batch: 0,
            keys: address(keys.as_ptr()),
            values: address(values.as_ptr()),
            count,
            map_fd: self.fd.as_raw_fd(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: both arrays hold `count` elements of the map's sizes; the kernel writes only the count.
        match unsafe { bpf(Command::MapUpdateBatch, &mut attributes) } {
            Ok(_) => Ok(()),
            // Where the kernel refuses the command itself it leaves the count alone, so nothing was done.
            Err(error) if is_unsupported(&error) => Err((0, error)),
            Err(error) => Err((attributes.count.min(count), error)),
        }
    }

    /// Reads one element into `value` (`stride` bytes); `false` when there is none.
    pub(crate) fn lookup(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key.len(), self.shape.value as usize, 1)?;
        if value.len() != self.stride {
            return Err(size_error());
        }
        let mut attributes = self.element(key, address(value.as_mut_ptr()));
        // SAFETY: the key has the map's size, the value is writable for as much as the kernel transfers.
        present(unsafe { bpf(Command::MapLookup, &mut attributes) })
    }

    /// Removes one element; `false` when there is none.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.check(key.len(), self.shape.value as usize, 1)?;
        let mut attributes = self.element(key, 0);
        // SAFETY: the key has the map's size.
        present(unsafe { bpf(Command::MapDelete, &mut attributes) })
    }

    /// All elements, many per system call. Elements inserted or removed meanwhile may be missed or seen twice.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries::new(self)
    }

    /// Writes the key after `key` (the first one for `None`); `false` at the end.
    fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        debug_assert!(key.is_none_or(|key| key.len() == next.len()));
        self.check(next.len(), self.shape.value as usize, 1)?;
        let mut attributes = self.element(&[], address(next.as_mut_ptr()));
        attributes.key = key.map_or(0, |key| address(key.as_ptr()));
        // SAFETY: both buffers have the map's key size.
        present(unsafe { bpf(Command::MapNextKey, &mut attributes) })
    }

    fn element(&self, key: &[u8], value: u64) -> ElementAttributes {
        ElementAttributes {
            map_fd: self.fd.as_raw_fd(),
            reserved: 0,
            key: address(key.as_ptr()),
            value,
            flags: 0,
        }
    }

    fn check(&self, keys: usize, values: usize, count: usize) -> io::Result<()> {
        let fits =
            keys == self.shape.key as usize * count && values == self.shape.value as usize * count;
        // A value to be written to a per-CPU map would have to hold every CPU's; nothing here writes one.
        if fits { Ok(()) } else { Err(size_error()) }
    }
}

/// Elements of a map, see [`Map::entries`].
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    map: &'a Map,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Where the kernel goes on: a bucket number or a key, its business.
    cursor: Vec<u8>,
    started: bool,
    ended: bool,
    batches: bool,
    filled: usize,
    taken: usize,
}

impl<'a> Entries<'a> {
    fn new(map: &'a Map) -> Self {
        let key = map.shape.key as usize;
        Self {
            map,
            keys: vec![0; key * Self::CHUNK],
            values: vec![0; map.stride * Self::CHUNK],
            cursor: vec![0; key.max(8)],
            started: false,
            ended: false,
            batches: map.shape.kind != map_type::PERCPU_ARRAY,
            filled: 0,
            taken: 0,
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.filled = 0;
        if self.batches {
            match self.refill_batch() {
                Err(error) if !self.started && is_unsupported(&error) => self.batches = false,
                result => return result,
            }
        }
        self.refill_single()
    }

    fn refill_batch(&mut self) -> io::Result<()> {
        loop {
            let key = self.map.shape.key as usize;
            let previous = self.cursor.clone();
            let room = self.keys.len() / key;
            let mut attributes = BatchAttributes {
                in_batch: if self.started {
                    address(previous.as_ptr())
                } else {
                    0
                },
                out_batch: address(self.cursor.as_mut_ptr()),
                keys: address(self.keys.as_mut_ptr()),
                values: address(self.values.as_mut_ptr()),
                count: u32::try_from(room).unwrap_or(u32::MAX),
                map_fd: self.map.fd.as_raw_fd(),
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: both buffers are writable for `count` elements, both cursors hold a key or a bucket number.
            let result = unsafe { bpf(Command::MapLookupBatch, &mut attributes) };
            match result {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.ended = true,
                // One bucket alone has more elements than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    self.cursor = previous;
                    self.keys.resize(room * 2 * key, 0);
                    self.values.resize(room * 2 * self.map.stride, 0);
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.started = true;
            self.filled = attributes.count as usize;
            return Ok(());
        }
    }

    fn refill_single(&mut self) -> io::Result<()> {
        let key = self.map.shape.key as usize;
        let stride = self.map.stride;
        while self.filled < Self::CHUNK && !self.ended {
            let previous = self.cursor[..key].to_vec();
            let previous = self.started.then_some(previous.as_slice());
            self.ended = !self.map.next_key(previous, &mut self.cursor[..key])?;
            self.started = true;
            let value = &mut self.values[self.filled * stride..][..stride];
            if !self.ended && self.map.lookup(&self.cursor[..key], value)? {
                self.keys[self.filled * key..][..key].copy_from_slice(&self.cursor[..key]);
                self.filled += 1;
            }
        }
        Ok(())
    }
}

impl Entries<'_> {
    /// Elements asked for in one call; a bucket with more makes the kernel ask for more space.
    pub(crate) const CHUNK: usize = 4096;

    /// Whether the next element has to be asked for: the kernel's answer so far is used up.
    pub(crate) const fn is_at_pause(&self) -> bool {
        self.taken == self.filled
    }

    /// The next element's key and value.
    pub(crate) fn advance(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        while self.is_at_pause() {
            if self.ended {
                return Ok(None);
            }
            self.refill()?;
        }
        let (key, stride) = (self.map.shape.key as usize, self.map.stride);
        let index = self.taken;
        self.taken += 1;
        Ok(Some((
            &self.keys[index * key..][..key],
            &self.values[index * stride..][..stride],
        )))
    }
}

/// `struct bpf_map_info`, as far as used.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

// SAFETY: plain numbers, the first fields of the kernel's struct.
unsafe impl Info for MapInfo {}

/// Whether the kernel does not know this command for this map.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    /// The kernel's own number, which it lets through to user space here.
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
    )
}

fn present(result: io::Result<i64>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn size_error() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "key or value is not of the map's size",
    )
}

/// CPUs that per-CPU maps have values for.
fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}
