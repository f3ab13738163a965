//! The options of `weir run` as clap's definition has them: there is no second list of them.

use std::any::TypeId;
use std::error::Error;
use std::ffi::OsString;

use clap::builder::{OsStr, PossibleValue};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use serde_json::Value;

use super::RunConfig;

/// One option.
#[derive(Clone, Debug)]
pub struct Definition(Arg);

/// How a value is written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Integer,
    Boolean,
    List,
}

/// All options, in the order of the struct.
#[must_use]
pub fn definitions() -> Vec<Definition> {
    let command = RunConfig::augment_args(Command::new("weir"));
    command.get_arguments().cloned().map(Definition).collect()
}

/// The configuration of flags alone: neither environment nor file is asked.
pub(super) fn from_flags(
    flags: impl IntoIterator<Item = OsString>,
) -> Result<RunConfig, clap::Error> {
    let command = Command::new("weir").no_binary_name(true);
    let command =
        RunConfig::augment_args(command).mut_args(|option| option.env(None::<&'static str>));
    RunConfig::from_arg_matches(&command.try_get_matches_from(flags)?)
}

impl Definition {
    /// Name of the field.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get_id().as_str()
    }

    /// Key in a file: the field in camelCase.
    #[must_use]
    pub fn key(&self) -> String {
        let mut words = self.id().split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |key, word| {
            let (initial, rest) = word.split_at(word.len().min(1));
            key + &initial.to_uppercase() + rest
        })
    }

    /// Flag with its dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.0.get_long().unwrap_or_default())
    }

    /// Environment variable.
    #[must_use]
    pub fn environment(&self) -> String {
        let name = self.0.get_env().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// What it does, in a sentence.
    #[must_use]
    pub fn meaning(&self) -> String {
        self.0
            .get_help()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// Whether an option is given a value; a switch could not undo what a file says.
    #[must_use]
    pub fn takes_value(&self) -> bool {
        matches!(self.0.get_action(), ArgAction::Set | ArgAction::Append)
    }

    /// Whether clap's message speaks of this option.
    pub(super) fn is_named_in(&self, message: &str) -> bool {
        message.contains(&format!("'{} ", self.flag()))
    }

    /// Value if nobody gives one; empty if there is none.
    pub(super) fn defaults(&self) -> Vec<OsString> {
        let values = self.0.get_default_values();
        values.iter().map(OsStr::to_os_string).collect()
    }

    /// What a value looks like.
    #[must_use]
    pub fn expected(&self) -> String {
        let choices: Vec<_> = self.0.get_possible_values();
        let choices: Vec<_> = choices.iter().map(PossibleValue::get_name).collect();
        let hint = self.0.get_value_names().unwrap_or_default().join(" ");
        match self.form() {
            Form::Boolean => "true or false".to_owned(),
            Form::Integer => "a whole number".to_owned(),
            Form::List => format!("a list of texts (each {hint})"),
            Form::Text if choices.is_empty() => format!("a text ({hint})"),
            Form::Text => format!("one of {}", choices.join(", ")),
        }
    }

    /// Reads a value of a file: none if it is null, else what the flag would be given.
    ///
    /// # Errors
    /// What is expected, if it is something else.
    pub(super) fn read(&self, value: &Value) -> Result<Option<Vec<OsString>>, String> {
        let texts: Option<Vec<String>> = match (self.form(), value) {
            (_, Value::Null) => return Ok(None),
            (Form::Text, Value::String(text)) => Some(vec![text.clone()]),
            (Form::Integer, Value::Number(number)) if !number.is_f64() => {
                Some(vec![number.to_string()])
            }
            (Form::Boolean, Value::Bool(truth)) => Some(vec![truth.to_string()]),
            (Form::List, Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| format!("it must be {}", self.expected()))?;
        let values: Vec<OsString> = texts.into_iter().map(OsString::from).collect();
        match from_flags(self.flags(&values)) {
            Ok(_) => Ok(Some(values)),
            Err(error) => Err(error.source().map_or_else(
                || format!("it must be {}", self.expected()),
                ToString::to_string,
            )),
        }
    }

    /// A value as a file has it.
    pub(super) fn write(&self, values: &[OsString]) -> Value {
        let mut texts = values.iter().map(|value| value.to_string_lossy());
        match (self.form(), texts.len()) {
            (Form::List, _) => texts.collect(),
            (_, 0) => Value::Null,
            (Form::Text, _) => texts.next().into(),
            // Both are as JSON writes them.
            (Form::Integer | Form::Boolean, _) => texts
                .next()
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default(),
        }
    }

    /// The flags that give these values.
    pub(super) fn flags(&self, values: &[OsString]) -> Vec<OsString> {
        let flag = |value: &OsString| {
            let mut flag = OsString::from(self.flag());
            flag.push("=");
            flag.push(value);
            flag
        };
        values.iter().map(flag).collect()
    }

    fn form(&self) -> Form {
        let parsed = self.0.get_value_parser().type_id();
        let is = |types: &[TypeId]| types.iter().any(|wanted| parsed == *wanted);
        if matches!(self.0.get_action(), ArgAction::Append) {
            Form::List
        } else if is(&[TypeId::of::<bool>()]) {
            Form::Boolean
        } else if is(&[
            TypeId::of::<u8>(),
            TypeId::of::<u16>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<usize>(),
            TypeId::of::<i32>(),
            TypeId::of::<i64>(),
        ]) {
            Form::Integer
        } else {
            Form::Text
        }
    }
}
