//! One setting of the machine.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::ethtool;

/// What is wanted of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// This value.
    Is(String),
    /// This number or more.
    AtLeast(u64),
}

/// Where a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file below the root.
    File(String),
    /// A file below the root that only a boot changes, or that only tells.
    ReadOnly(String),
    /// A feature or parameter of an interface that only ethtool tells.
    Ethtool {
        interface: String,
        setting: ethtool::Setting,
    },
}

/// A setting, what it should be and why.
#[derive(Clone, Debug)]
pub(super) struct Knob {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) wanted: Wanted,
    pub(super) why: String,
}

/// How a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Right(String),
    Wrong(String),
    /// This machine does not have it.
    Absent,
}

impl Knob {
    pub(super) fn new(name: impl Into<String>, source: Source, wanted: Wanted, why: &str) -> Self {
        Self {
            name: name.into(),
            source,
            wanted,
            why: why.to_owned(),
        }
    }

    pub(super) fn is_settable(&self) -> bool {
        !matches!(self.source, Source::ReadOnly(_))
    }

    pub(super) fn wanted(&self) -> String {
        match &self.wanted {
            Wanted::Is(value) => value.clone(),
            Wanted::AtLeast(least) => least.to_string(),
        }
    }

    fn read(&self, root: &Path) -> Option<String> {
        match &self.source {
            Source::File(path) | Source::ReadOnly(path) => fs::read_to_string(root.join(path))
                .ok()
                .map(|text| text.trim().to_owned()),
            // Only the machine's own settings can be asked for, not those of a folder.
            Source::Ethtool { interface, setting } if root == Path::new("/") => setting.read(interface),
            Source::Ethtool { .. } => None,
        }
    }

    pub(super) fn standing(&self, root: &Path) -> Standing {
        let Some(is) = self.read(root) else {
            return Standing::Absent;
        };
        let is_right = match &self.wanted {
            Wanted::Is(value) => is.split_whitespace().eq(value.split_whitespace()),
            Wanted::AtLeast(least) => is
                .split_whitespace()
                .next_back()
                .and_then(|number| number.parse::<u64>().ok())
                .is_some_and(|number| number >= *least),
        };
        if is_right {
            Standing::Right(is)
        } else {
            Standing::Wrong(is)
        }
    }

    /// # Errors
    /// The kernel's.
    pub(super) fn set(&self, root: &Path, value: &str) -> io::Result<()> {
        match &self.source {
            Source::File(path) => fs::write(root.join(path), value),
            Source::ReadOnly(_) => Err(io::Error::other("only a boot, or other hardware, changes it")),
            Source::Ethtool { interface, setting } => setting.write(interface, value),
        }
    }

    pub(super) fn record(&self, root: &Path) -> Value {
        let (mark, ok, is) = match self.standing(root) {
            Standing::Right(is) => ("yes", Value::Bool(true), Value::String(is)),
            Standing::Wrong(is) => ("NO", Value::Bool(false), Value::String(is)),
            Standing::Absent => ("-", Value::Null, Value::Null),
        };
        let should_be = match &self.wanted {
            Wanted::Is(value) => value.clone(),
            Wanted::AtLeast(least) => format!(">= {least}"),
        };
        json!({
            "mark": mark,
            "ok": ok,
            "setting": self.name,
            "is": is,
            "should_be": should_be,
            "settable": self.is_settable(),
            "why": self.why,
        })
    }

    /// Enough to set it back.
    pub(super) fn to_json(&self) -> Value {
        match &self.source {
            Source::File(path) | Source::ReadOnly(path) => json!({ "file": path }),
            Source::Ethtool { interface, setting } => {
                json!({ "interface": interface, "ethtool": setting.name() })
            }
        }
    }

    pub(super) fn from_json(name: &str, value: &Value) -> Option<Self> {
        let source = match (value["file"].as_str(), value["interface"].as_str()) {
            (Some(file), _) => Source::File(file.to_owned()),
            (None, Some(interface)) => Source::Ethtool {
                interface: interface.to_owned(),
                setting: ethtool::Setting::named(value["ethtool"].as_str()?)?,
            },
            _ => return None,
        };
        Some(Self::new(name, source, Wanted::Is(String::new()), ""))
    }
}
