//! Maps in memory: carry out plans and answer as the kernel's maps would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_common::abi::{
    Address, BACKEND_GONE, BackendState, CLASS_UNSET, CLASS_WORLD, Class, Endpoint, EndpointKey,
    Frontend, FrontendKey, PrefixKey, ROW_ABSENT, ROW_OPEN, Range, Rows, Segment, Slot, SourceKey,
    SourceScope, VerdictKey, control, range_bound,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::sizes::BACKENDS;
use super::step::{Plan, Sizes, Step, Table};

/// One map of bytes to bytes.
type Elements = BTreeMap<Vec<u8>, Vec<u8>>;

/// Why a step could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// As `E2BIG` in the kernel.
    #[error("map {} is full ({size} elements)", table.name())]
    Full {
        /// The map.
        table: Table,
        /// Its capacity.
        size: u32,
    },
    /// A write before any `Begin`, or a `Select` without one.
    #[error(
        "no generation has been begun; plans of a planner that knows other maps do not fit these"
    )]
    NoGeneration,
    /// A word that the `control` array does not have.
    #[error("the control array has no word {0}")]
    NoControl(u32),
}

/// One generation of maps.
#[derive(Clone, Debug, Default)]
struct Generation {
    sizes: Sizes,
    tables: BTreeMap<Table, Elements>,
}

/// Maps in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryMaps {
    generations: [Option<Generation>; 2],
    begun: bool,
    backends: Elements,
    control: [u64; control::ENTRIES as usize],
}

impl MemoryMaps {
    /// Maps as before the agent's first start.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps with the elements that were read from a kernel, in this version of the two-version ones.
    #[must_use]
    pub fn read_back(
        version: u64,
        mut tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    ) -> Self {
        let mut maps = Self {
            backends: tables.remove(&Table::Backend).unwrap_or_default(),
            ..Self::default()
        };
        maps.control[control::VERSION as usize] = version;
        maps.generations[maps.selected()] = Some(Generation {
            sizes: Sizes::new(),
            tables,
        });
        maps
    }

    /// Carries out a plan.
    ///
    /// # Errors
    /// The first step that fails; steps before it have been carried out.
    pub fn execute(&mut self, plan: &Plan) -> Result<(), MemoryError> {
        plan.steps.iter().try_for_each(|step| self.apply(step))
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn apply(&mut self, step: &Step) -> Result<(), MemoryError> {
        match step {
            Step::Begin(sizes) => {
                self.begun = true;
                let idle = 1 - self.selected();
                self.generations[idle] = Some(Generation {
                    sizes: sizes.clone(),
                    tables: BTreeMap::new(),
                });
            }
            Step::Write { table, key, value } => self.write(*table, key, value)?,
            Step::Delete { table, key } => {
                self.table_mut(*table)?.0.remove(key.as_slice());
            }
            Step::Select => {
                if !self.begun {
                    return Err(MemoryError::NoGeneration);
                }
                let old = self.selected();
                self.control[control::SELECTED as usize] = 1 - old as u64;
                self.generations[old] = None;
                self.begun = false;
            }
            Step::Control { index, value } => {
                let word = self.control.get_mut(*index as usize);
                *word.ok_or(MemoryError::NoControl(*index))? = *value;
            }
            Step::BumpEpoch => {
                let epoch = &mut self.control[control::EPOCH as usize];
                *epoch = epoch.wrapping_add(1);
            }
            Step::Wait => {}
        }
        Ok(())
    }

    fn selected(&self) -> usize {
        (self.control[control::SELECTED as usize] & 1) as usize
    }

    /// The map that writes go to, and its capacity.
    fn table_mut(&mut self, table: Table) -> Result<(&mut Elements, u32), MemoryError> {
        if table == Table::Backend {
            return Ok((&mut self.backends, BACKENDS));
        }
        let written = if self.begun {
            1 - self.selected()
        } else {
            self.selected()
        };
        let generation = self.generations[written]
            .as_mut()
            .ok_or(MemoryError::NoGeneration)?;
        let size = generation.sizes.get(&table).copied().unwrap_or(0);
        Ok((generation.tables.entry(table).or_default(), size))
    }

    fn write(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), MemoryError> {
        let (elements, size) = self.table_mut(table)?;
        let fits = match table {
            // Arrays: the key is an index.
            Table::Slot | Table::Range | Table::Backend => {
                u32::read_from_bytes(key).is_ok_and(|index| index < size)
            }
            _ => elements.len() < size as usize || elements.contains_key(key),
        };
        if !fits {
            return Err(MemoryError::Full { table, size });
        }
        elements.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    /// The elements of a table that programs read, as bytes.
    #[must_use]
    pub fn dump(&self, table: Table) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.elements(table).cloned().unwrap_or_default()
    }

    fn elements(&self, table: Table) -> Option<&Elements> {
        if table == Table::Backend {
            return Some(&self.backends);
        }
        self.generations[self.selected()]
            .as_ref()?
            .tables
            .get(&table)
    }

    fn get<V: FromBytes>(&self, table: Table, key: &(impl IntoBytes + Immutable)) -> Option<V> {
        let value = self.elements(table)?.get(key.as_bytes())?;
        Some(V::read_from_bytes(value).expect("plans write the table's type"))
    }

    fn all<K: FromBytes, V: FromBytes>(&self, table: Table) -> impl Iterator<Item = (K, V)> {
        self.elements(table)
            .into_iter()
            .flatten()
            .map(|(key, value)| {
                (
                    K::read_from_bytes(key).expect("plans write the table's key type"),
                    V::read_from_bytes(value).expect("plans write the table's type"),
                )
            })
    }

    /// An element of map `frontend`.
    #[must_use]
    pub fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.get(Table::Frontend, key)
    }

    /// An element of array `slot`.
    #[must_use]
    pub fn slot(&self, index: u32) -> Option<Slot> {
        self.get(Table::Slot, &index)
    }

    /// An element of array `backend`; zeros where nothing was ever written.
    #[must_use]
    pub fn backend(&self, id: u32) -> BackendState {
        self.get(Table::Backend, &id).unwrap_or_default()
    }

    /// Every element of array `backend` that was written, as an agent reads it at its start.
    #[must_use]
    pub fn backends(&self) -> Vec<(u32, BackendState)> {
        self.all(Table::Backend).collect()
    }

    /// An element of map `endpoint`.
    #[must_use]
    pub fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint> {
        self.get(Table::Endpoint, key)
    }

    /// The rows of a pod in the version in force; `None` for one that is not there.
    #[must_use]
    pub fn rows(&self, key: &EndpointKey) -> Option<Rows> {
        let rows = self.endpoint(key)?.rows[self.version()];
        (rows.ingress != ROW_ABSENT).then_some(rows)
    }

    /// An element of map `class`.
    #[must_use]
    pub fn class(&self, address: &Address) -> Option<Class> {
        self.get(Table::Class, address)
    }

    /// The longest prefix of an address in map `prefix`.
    #[must_use]
    pub fn prefix(&self, address: &Address) -> Option<Class> {
        let number = u128::from_be_bytes(address.bytes());
        (0..=128).rev().find_map(|bits| {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let address = Address::from_bytes((number & mask).to_be_bytes());
            self.get(Table::Prefix, &PrefixKey { bits, address })
        })
    }

    /// Whether map `source` has a prefix of a client's key.
    #[must_use]
    pub fn admits(&self, key: &SourceKey) -> bool {
        let number = u128::from_be_bytes(key.scope.client.bytes());
        (0..=128).any(|bits: u32| {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let client = Address::from_bytes((number & mask).to_be_bytes());
            let key = SourceKey {
                bits: 64 + bits,
                scope: SourceScope {
                    client,
                    ..key.scope
                },
            };
            let found: Option<u32> = self.get(Table::Source, &key);
            found.is_some()
        })
    }

    /// An element of map `verdict`.
    #[must_use]
    pub fn verdict(&self, key: &VerdictKey) -> Option<Segment> {
        self.get(Table::Verdict, key)
    }

    /// An element of array `range`.
    #[must_use]
    pub fn range(&self, index: u32) -> Option<Range> {
        self.get(Table::Range, &index)
    }

    /// A word of the `control` array; 0 where it has none.
    #[must_use]
    pub fn control(&self, index: u32) -> u64 {
        self.control.get(index as usize).copied().unwrap_or(0)
    }

    /// The version of two-version elements that is in force.
    fn version(&self) -> usize {
        (self.control(control::VERSION) & 1) as usize
    }

    /// The slots of a run; `None` where one was never written.
    #[must_use]
    pub fn slots(&self, base: u32, count: u32) -> Option<Vec<Slot>> {
        (base..base + count).map(|index| self.slot(index)).collect()
    }

    /// The rule that lets a new flow pass at a row, `None` if none does. `port` is the destination's.
    #[must_use]
    pub fn allowing_rule(&self, row: u32, peer: IpAddr, protocol: u8, port: u16) -> Option<u32> {
        let address = Address::from(peer);
        let version = self.version();
        let own = self.class(&address).map(|class| class.versions[version]);
        let class = own
            .filter(|class| *class != CLASS_UNSET)
            .unwrap_or_else(|| {
                let prefix = self.prefix(&address);
                prefix.map_or(CLASS_WORLD, |class| class.versions[version])
            });
        let segment = self.verdict(&VerdictKey { row, class })?;
        let wanted = range_bound(protocol, port);
        (segment.base..segment.base + segment.count)
            .filter_map(|index| self.range(index))
            .find(|range| (range.first..=range.last).contains(&wanted))
            .map(|range| range.rule)
    }

    /// What the maps say, without the numbers that stand for it.
    #[must_use]
    pub fn canonical(&self) -> Canonical {
        let version = self.version();
        let labels = self.class_labels(version);
        let mut verdicts: BTreeMap<u32, BTreeMap<String, Vec<Range>>> = BTreeMap::new();
        let mut orphans = 0;
        for (key, segment) in self.all::<VerdictKey, Segment>(Table::Verdict) {
            let Some(label) = labels.get(&key.class) else {
                orphans += 1;
                continue;
            };
            let ranges = (segment.base..segment.base + segment.count)
                .filter_map(|index| self.range(index))
                .collect();
            verdicts
                .entry(key.row)
                .or_default()
                .insert(label.clone(), ranges);
        }
        let mut used = BTreeSet::new();
        let mut row = |number: u32| {
            used.insert(number);
            match number {
                ROW_OPEN => CanonicalRow::Open,
                ROW_ABSENT => CanonicalRow::Absent,
                _ => CanonicalRow::Isolated(verdicts.get(&number).cloned().unwrap_or_default()),
            }
        };
        let endpoints = self
            .all::<EndpointKey, Endpoint>(Table::Endpoint)
            .map(|(key, value)| {
                let rows = value.rows[version];
                let rows = [row(rows.ingress), row(rows.egress)];
                (key, (value.id, value.ifindex, rows))
            })
            .collect();
        orphans += verdicts.keys().filter(|row| !used.contains(row)).count();
        let label = |class: Class| labels[&class.versions[version]].clone();
        Canonical {
            frontends: self
                .all::<FrontendKey, Frontend>(Table::Frontend)
                .map(|(key, value)| (key, self.canonical_frontend(&value)))
                .collect(),
            backends: self
                .backends()
                .into_iter()
                .filter(|(_, state)| state.state != BACKEND_GONE)
                .map(|(_, state)| (state.fingerprint, state))
                .collect(),
            endpoints,
            addresses: self
                .all(Table::Class)
                .map(|(key, class)| (key, label(class)))
                .collect(),
            prefixes: self
                .all(Table::Prefix)
                .map(|(key, class)| (key, label(class)))
                .collect(),
            orphans,
        }
    }

    /// A name for every class in force: the first element that has it.
    fn class_labels(&self, version: usize) -> BTreeMap<u32, String> {
        let mut labels = BTreeMap::from([
            (CLASS_WORLD, "world".to_owned()),
            (CLASS_UNSET, "unset".to_owned()),
        ]);
        for (key, class) in self.all::<Address, Class>(Table::Class) {
            let label = labels.entry(class.versions[version]);
            label.or_insert_with(|| format!("like {key}"));
        }
        for (key, class) in self.all::<PrefixKey, Class>(Table::Prefix) {
            let label = labels.entry(class.versions[version]);
            label.or_insert_with(|| format!("like {}/{}", key.address, key.bits));
        }
        labels
    }

    fn canonical_frontend(&self, value: &Frontend) -> CanonicalFrontend {
        let set = |base, count| {
            let slots = self.slots(base, count).unwrap_or_default();
            let backend = |slot: Slot| {
                (
                    slot.address,
                    slot.port,
                    slot.fingerprint,
                    self.backend(slot.backend).state,
                )
            };
            slots.into_iter().map(backend).collect()
        };
        CanonicalFrontend {
            service: value.service,
            flags: value.flags,
            affinity_seconds: value.affinity_seconds,
            internal: set(value.internal_base, value.internal_count),
            external: set(value.external_base, value.external_count),
        }
    }
}

/// What the maps of a node say, without the numbers that stand for rows, classes, runs and backends, which depend on history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Frontends with their backends.
    pub frontends: BTreeMap<FrontendKey, CanonicalFrontend>,
    /// State of every backend that is not gone, by fingerprint.
    pub backends: BTreeMap<u32, BackendState>,
    /// Id, device and rows (ingress, egress) of local pods.
    pub endpoints: BTreeMap<EndpointKey, (u64, u32, [CanonicalRow; 2])>,
    /// Name of the class of each address.
    pub addresses: BTreeMap<Address, String>,
    /// Name of the class of each prefix.
    pub prefixes: BTreeMap<PrefixKey, String>,
    /// Rows without a pod and verdicts without a class: left behind by mistake.
    pub orphans: usize,
}

/// A frontend in [`Canonical`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalFrontend {
    /// See [`Frontend::service`].
    pub service: u64,
    /// See [`Frontend::flags`].
    pub flags: u32,
    /// See [`Frontend::affinity_seconds`].
    pub affinity_seconds: u32,
    /// Address, port, fingerprint and state of the backends for clients in the cluster.
    pub internal: Vec<(Address, u16, u32, u16)>,
    /// The same for clients outside.
    pub external: Vec<(Address, u16, u32, u16)>,
}

/// A row in [`Canonical`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanonicalRow {
    /// Not isolated.
    Open,
    /// The pod does not exist.
    Absent,
    /// Ranges by name of class.
    Isolated(BTreeMap<String, Vec<Range>>),
}
