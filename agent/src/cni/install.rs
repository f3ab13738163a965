//! Puts the plugin into the node's CNI configuration, and takes it out.
//!
//! The configuration is another's: what it holds besides the plugin's entry is kept as it is, byte for byte.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::config::WhenAgentIsDown;

/// Where runtimes look for configurations unless told otherwise.
pub const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// Where runtimes look for plugins unless told otherwise.
pub const PLUGINS: &str = "/opt/cni/bin";
/// The plugin's type, which is the name of its program.
pub const PLUGIN: &str = "weir-cni";
/// The list that stands before a configuration that is no list.
const OWN_LIST: &str = "0-weir.conflist";
/// What the names of files end with that are not complete yet. Runtimes pass over them.
const UNFINISHED: &str = "weir-new";

/// A JSON object whose values and their order stay as they are.
type Object = IndexMap<String, Box<RawValue>>;

/// Why the plugin cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// No main plugin yet.
    #[error(
        "{} has no network configuration: install a network plugin first, or let `weir cni install --watch` wait for it", .0.display()
    )]
    NoConfiguration(PathBuf),
    /// A file that cannot be read as a configuration.
    #[error("{} is no network configuration: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A name that nothing of ours sorts before.
    #[error(
        "runtimes take {} before any list that Weir could put there: give it another name", .0.display()
    )]
    First(PathBuf),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// What the plugin is told in its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Run directory of the agent, as seen from the node.
    pub run_dir: PathBuf,
    /// See [`super::Config::wait_seconds`].
    pub wait_seconds: u64,
    /// See [`super::Config::when_agent_is_down`].
    pub when_agent_is_down: WhenAgentIsDown,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    settings: &'a Settings,
}

/// The node's directories, as seen from here.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Directory of network configurations.
    pub configurations: PathBuf,
    /// Directory of plugins.
    pub plugins: PathBuf,
}

impl Installation {
    /// Where runtimes look unless told otherwise.
    #[must_use]
    pub fn of_node() -> Self {
        Self {
            configurations: CONFIGURATIONS.into(),
            plugins: PLUGINS.into(),
        }
    }

    /// Copies this program there, and names it in the configuration that runtimes take; whether anything had to be done.
    ///
    /// # Errors
    /// When there is no configuration, or a file cannot be read or written.
    pub fn install(&self, program: &Path, settings: &Settings) -> Result<bool, InstallError> {
        self.remove_unfinished()?;
        // First: a configuration must name no plugin that is not there.
        let copied = self.copy(program)?;
        Ok(self.configure(settings)? || copied)
    }

    /// Takes it out again; whether anything was there.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn uninstall(&self) -> Result<bool, InstallError> {
        self.remove_unfinished()?;
        let mut any = remove(&self.configurations.join(OWN_LIST))?;
        for path in self.files()? {
            if !is_list(&path) {
                continue;
            }
            // One that cannot be read has no entry of ours.
            if let Ok((mut object, mut plugins)) = read_list(&path) {
                let before = plugins.len();
                plugins.retain(|plugin| !is_ours(plugin));
                if plugins.len() < before {
                    set_plugins(&mut object, &plugins, &path)?;
                    write(&path, &pretty(&object, &path)?)?;
                    any = true;
                }
            }
        }
        // Last, for the same reason.
        Ok(remove(&self.plugins.join(PLUGIN))? || any)
    }

    /// Whether the configuration that runtimes take names the plugin.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn is_installed(&self) -> Result<bool, InstallError> {
        let files = self.files()?;
        let first = files
            .first()
            .ok_or_else(|| InstallError::NoConfiguration(self.configurations.clone()))?;
        Ok(is_list(first) && read_list(first)?.1.iter().any(|plugin| is_ours(plugin)))
    }

    /// Files that runtimes read, in their order.
    fn files(&self) -> Result<Vec<PathBuf>, InstallError> {
        let entries = match fs::read_dir(&self.configurations) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("list", &self.configurations))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &self.configurations))?.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            if matches!(suffix, Some("conf" | "conflist" | "json")) && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn configure(&self, settings: &Settings) -> Result<bool, InstallError> {
        let own = self.configurations.join(OWN_LIST);
        let files = self.files()?;
        let first = files
            .iter()
            .find(|path| **path != own)
            .ok_or_else(|| InstallError::NoConfiguration(self.configurations.clone()))?;
        let entry = Entry {
            kind: PLUGIN,
            settings,
        };
        let entry = to_raw_value(&entry).map_err(malformed(first))?;
        if is_list(first) {
            let changed = add(first, entry)?;
            // The main plugin's configuration may have been no list before.
            return Ok(remove(&own)? || changed);
        }
        if *first < own {
            return Err(InstallError::First(first.clone()));
        }
        let list = pretty(&list_of(first, entry)?, first)?;
        if fs::read(&own).is_ok_and(|there| there == list) {
            return Ok(false);
        }
        write(&own, &list)?;
        Ok(true)
    }

    fn copy(&self, program: &Path) -> Result<bool, InstallError> {
        let to = self.plugins.join(PLUGIN);
        let program = fs::read(program).map_err(failed("read", program))?;
        if fs::read(&to).is_ok_and(|there| there == program) {
            return Ok(false);
        }
        fs::create_dir_all(&self.plugins).map_err(failed("create", &self.plugins))?;
        write_as(&to, &program, Permissions::from_mode(0o755))?;
        Ok(true)
    }

    /// What a power cut left.
    fn remove_unfinished(&self) -> Result<(), InstallError> {
        for directory in [&self.configurations, &self.plugins] {
            let Ok(entries) = fs::read_dir(directory) else {
                continue;
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|suffix| suffix == UNFINISHED) {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "conflist")
}

fn is_ours(plugin: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        kind: String,
    }
    let typed: Result<Typed, _> = serde_json::from_str(plugin.get());
    typed.is_ok_and(|typed| typed.kind == PLUGIN)
}

fn read_object(path: &Path) -> Result<Object, InstallError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    serde_json::from_str(&text).map_err(malformed(path))
}

fn read_list(path: &Path) -> Result<(Object, Vec<Box<RawValue>>), InstallError> {
    let object = read_object(path)?;
    let plugins = object
        .get("plugins")
        .ok_or_else(|| InstallError::Malformed {
            path: path.to_owned(),
            message: "it has no plugins".to_owned(),
        })?;
    let plugins = serde_json::from_str(plugins.get()).map_err(malformed(path))?;
    Ok((object, plugins))
}

/// Makes the entry the last of a list; whether it was not.
fn add(path: &Path, entry: Box<RawValue>) -> Result<bool, InstallError> {
    let (mut object, mut plugins) = read_list(path)?;
    let ours = plugins.iter().filter(|plugin| is_ours(plugin)).count();
    let is_last = plugins.last().is_some_and(|last| same(last, &entry));
    if ours == 1 && is_last {
        return Ok(false);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(entry);
    set_plugins(&mut object, &plugins, path)?;
    write(path, &pretty(&object, path)?)?;
    Ok(true)
}

/// Whether two entries say the same, however they are written.
fn same(one: &RawValue, other: &RawValue) -> bool {
    let value = |text: &RawValue| serde_json::from_str::<serde_json::Value>(text.get()).ok();
    value(one) == value(other)
}

fn set_plugins(
    object: &mut Object,
    plugins: &[Box<RawValue>],
    path: &Path,
) -> Result<(), InstallError> {
    let plugins = serde_json::to_string_pretty(plugins).map_err(malformed(path))?;
    let plugins = RawValue::from_string(plugins).map_err(malformed(path))?;
    object.insert("plugins".to_owned(), plugins);
    Ok(())
}

/// A list of a single plugin's configuration and the entry.
fn list_of(path: &Path, entry: Box<RawValue>) -> Result<Object, InstallError> {
    let mut plugin = read_object(path)?;
    let mut list = Object::new();
    // What belongs to the network and not to one of its plugins.
    for key in ["cniVersion", "name"] {
        if let Some(value) = plugin.shift_remove(key) {
            list.insert(key.to_owned(), value);
        }
    }
    let plugin = to_raw_value(&plugin).map_err(malformed(path))?;
    set_plugins(&mut list, &[plugin, entry], path)?;
    Ok(list)
}

fn pretty(object: &Object, path: &Path) -> Result<Vec<u8>, InstallError> {
    let mut text = serde_json::to_vec_pretty(object).map_err(malformed(path))?;
    text.push(b'\n');
    Ok(text)
}

/// Replaces a file in one step, with the rights that it had.
fn write(path: &Path, content: &[u8]) -> Result<(), InstallError> {
    let rights = fs::metadata(path)
        .map_or_else(|_| Permissions::from_mode(0o600), |file| file.permissions());
    write_as(path, content, rights)
}

fn write_as(path: &Path, content: &[u8], rights: Permissions) -> Result<(), InstallError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".");
    fresh.push(UNFINISHED);
    let fresh = PathBuf::from(fresh);
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(content)?;
        file.set_permissions(rights)?;
        file.sync_all()
    });
    written.map_err(failed("write", &fresh))?;
    fs::rename(&fresh, path).map_err(failed("replace", path))?;
    // The new name, too, must survive a power cut.
    let directory = path.parent().map(File::open);
    let synced = directory.map_or(Ok(()), |directory| directory?.sync_all());
    synced.map_err(failed("finish writing", path))
}

fn remove(path: &Path) -> Result<bool, InstallError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).map_err(failed("remove", path)),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn malformed(path: &Path) -> impl FnOnce(serde_json::Error) -> InstallError {
    move |error| InstallError::Malformed {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
