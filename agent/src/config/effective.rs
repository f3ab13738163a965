//! The configuration that counts: flag over environment over file over default, each value with who gave it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::definition::{Definition, definitions, from_flags};
use super::file::{self, Ignored, Place};
use super::{ConfigError, RunConfig};

/// Who gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag(String),
    /// An environment variable.
    Environment(String),
    /// A file.
    File(Place),
    /// Nobody.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(place) if place.line.is_some() => write!(f, "file {}", place.location()),
            Self::File(place) => write!(f, "file {}, {}", place.location(), place.field),
            Self::Default => f.write_str("default"),
        }
    }
}

/// An option and its value.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The option.
    pub option: Definition,
    /// What its flag would be given; none if it is not set.
    pub values: Vec<OsString>,
    /// Who gave it.
    pub source: Source,
}

/// The configuration of a command line with `--config`.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: RunConfig,
    /// Every option with value and source, in the order of their definition.
    pub settings: Vec<Setting>,
    /// What the file says in vain.
    pub ignored: Vec<Ignored>,
}

impl Effective {
    fn new(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let path = matches.get_one::<PathBuf>(CONFIG);
        let mut file = path.map_or_else(|| Ok(file::File::default()), |path| file::read(path))?;
        let setting = |option: Definition| {
            let given = matches.get_raw(option.id()).into_iter().flatten();
            let given = || given.map(ToOwned::to_owned).collect();
            let (values, source) = match matches.value_source(option.id()) {
                Some(ValueSource::CommandLine) => (given(), Source::Flag(option.flag())),
                Some(ValueSource::EnvVariable) => {
                    (given(), Source::Environment(option.environment()))
                }
                _ => match file.values.remove(option.id()) {
                    Some((values, place)) => (values, Source::File(place)),
                    None => (option.defaults(), Source::Default),
                },
            };
            Setting {
                option,
                values,
                source,
            }
        };
        let settings: Vec<Setting> = definitions().into_iter().map(setting).collect();
        Ok(Self {
            config: combine(&settings)?,
            settings,
            ignored: file.ignored,
        })
    }

    /// See [`RunConfig::validate`]; a value that no flag gave is told with who gave it.
    ///
    /// # Errors
    /// Names the option, who set it, and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let source = |id: &str| {
            let setting = self.settings.iter().find(|one| one.option.id() == id)?;
            Some(setting.source.clone())
        };
        self.config
            .validate()
            .map_err(|error| match error.option().and_then(source) {
                None | Some(Source::Flag(_)) => error,
                Some(origin) => ConfigError::From {
                    error: Box::new(error),
                    origin,
                },
            })
    }
}

/// Every value is good by itself: what clap still has to say is who excludes whom.
fn combine(settings: &[Setting]) -> Result<RunConfig, ConfigError> {
    let given = || {
        settings
            .iter()
            .filter(|setting| setting.source != Source::Default)
    };
    from_flags(given().flat_map(|setting| setting.option.flags(&setting.values))).map_err(|error| {
        let message = error.to_string();
        let named: Vec<String> = given()
            .filter(|setting| setting.option.is_named_in(&message))
            .map(|setting| format!("{} ({})", setting.option.key(), setting.source))
            .collect();
        ConfigError::Together(named.join(" and "))
    })
}

const CONFIG: &str = "config";

/// [`RunConfig`]'s flags and the file's.
impl Args for Effective {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .env("WEIR_CONFIG")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("YAML file with any of the options below (`weir config print` shows one), or a KubeProxyConfiguration");
        RunConfig::augment_args(command.arg(config))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Effective {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let error = |error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, error);
        Self::new(matches).map_err(|wrong| error(format!("{wrong}\n")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
