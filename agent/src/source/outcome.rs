//! What became of one API object, as events.

use super::convert::{Conversion, Converted};
use super::{Fault, Problem, Rejection};
use crate::model::{Event, Kind, Object, ObjectName};

/// Flaws that are spelt out; of the rest only the number is told.
const FLAWS_TOLD: usize = 5;

/// What became of one API object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It is used, perhaps without some parts of it.
    Used(Box<Object>, Option<String>),
    /// It is not for us.
    NotOurs,
    /// It cannot be used.
    Rejected(String),
}

impl Outcome {
    pub(super) fn of(conversion: Conversion) -> Self {
        match conversion {
            Ok(Some(Converted { object, flaws })) => Self::Used(Box::new(object), summary(&flaws)),
            Ok(None) => Self::NotOurs,
            Err(Rejection { fault, .. }) => Self::Rejected(fault.to_string()),
        }
    }

    /// The same with the place in its message, so that a person finds it.
    pub(super) fn at(self, place: &str) -> Self {
        match self {
            Self::Used(object, message) => {
                Self::Used(object, message.map(|message| format!("{place}: {message}")))
            }
            Self::Rejected(message) => Self::Rejected(format!("{place}: {message}")),
            Self::NotOurs => Self::NotOurs,
        }
    }

    /// Adds to what is reported.
    pub(super) fn note(&mut self, note: &str) {
        match self {
            Self::Used(_, Some(message)) | Self::Rejected(message) => {
                message.push_str("; ");
                message.push_str(note);
            }
            Self::Used(_, message @ None) => *message = Some(note.to_owned()),
            Self::NotOurs => {}
        }
    }

    /// The event that reports the object as unusable or flawed, if it is.
    pub(super) fn report(&self, kind: Kind, name: &ObjectName, uid: &str) -> Option<Event> {
        let (name, uid) = (name.clone(), uid.to_owned());
        match self {
            Self::Used(_, Some(message)) => Some(Event::Flawed {
                kind,
                name,
                uid,
                message: message.clone(),
            }),
            Self::Rejected(message) => Some(Event::Rejected {
                kind,
                name,
                uid,
                message: message.clone(),
            }),
            Self::Used(_, None) | Self::NotOurs => None,
        }
    }

    /// The events that bring a state up to date which may hold an earlier version of the object.
    pub(super) fn events(
        &self,
        kind: Kind,
        name: &ObjectName,
        uid: &str,
    ) -> impl Iterator<Item = Event> {
        let main = match self {
            Self::Used(object, _) => Some(Event::Applied(Object::clone(object))),
            Self::NotOurs => Some(Event::Deleted(kind, name.clone())),
            Self::Rejected(_) => None,
        };
        main.into_iter().chain(self.report(kind, name, uid))
    }
}

fn summary(flaws: &[Fault]) -> Option<String> {
    let told: Vec<_> = flaws
        .iter()
        .take(FLAWS_TOLD)
        .map(Fault::to_string)
        .collect();
    match flaws.len() {
        0 => None,
        count if count > FLAWS_TOLD => Some(format!(
            "{}; and {} more such parts",
            told.join("; "),
            count - FLAWS_TOLD
        )),
        _ => Some(told.join("; ")),
    }
}

/// A line that tells a person what could not be used, for events that report such a thing.
pub(super) fn describe(event: &Event) -> Option<String> {
    match event {
        Event::Rejected {
            kind,
            name,
            message,
            ..
        } => Some(format!("{} {name} is skipped: {message}", kind.as_str())),
        Event::Flawed {
            kind,
            name,
            message,
            ..
        } => Some(format!(
            "{} {name} is used in part: {message}",
            kind.as_str()
        )),
        Event::File { name, message } => message
            .as_ref()
            .map(|message| format!("file {name} is not used: {message}")),
        Event::Applied(_) | Event::Deleted(..) | Event::Replaced(..) => None,
    }
}

/// Writes reports to the log, where an operator looks first.
pub(super) fn log(event: &Event) {
    if let Some(line) = describe(event) {
        tracing::warn!("{line}");
    }
}

/// The fault of an object that its decoder refuses.
pub(super) fn misshapen(api_version: &'static str, kind: Kind, message: String) -> Fault {
    Fault::new(
        "",
        Problem::Shape {
            api_version,
            kind: kind.as_str(),
            message,
        },
    )
}
