//! The layers of the configuration laid over each other, not yet understood.
//!
//! Sections are flattened to `section.key`, so that a table in the file and `--set load.weights.sip=2`
//! meet in one place. [`KEYS`] says what exists: a key outside it is refused where it comes in.

use std::{collections::BTreeMap, fs, ops::RangeInclusive, path::Path};

use super::ConfigError;

/// Every key there is.
pub(super) const KEYS: [&str; 68] = [
    "server.id",
    "server.cores",
    "server.drain_timeout_s",
    "sip.listen",
    "sip.advertise",
    "sip.tls.certificate",
    "sip.tls.key",
    "sip.tls.client_ca",
    "sip.tls.ca",
    "sip.origins",
    "sip.session_expires_s",
    "sip.session_min_s",
    "sip.outbound_proxy",
    "sip.outbound_user",
    "sip.outbound_password",
    "auth.realm",
    "auth.users",
    "auth.secret",
    "auth.auth_int",
    "auth.trusted",
    "abuse.fault_rate",
    "abuse.mute_s",
    "abuse.flood_rate",
    "abuse.trusted",
    "abuse.drop_user_agents",
    "rtp.address",
    "rtp.advertise",
    "rtp.ports",
    "rtp.jitter_ms",
    "rtp.timeout_s",
    "rtp.shared_ports",
    "load.max",
    "load.min",
    "load.hot_max",
    "load.weights.sip",
    "load.weights.audio",
    "load.weights.video",
    "cluster.peers",
    "cluster.reserved",
    "cluster.trusted",
    "cluster.redirect",
    "cluster.listen",
    "cluster.tls",
    "cluster.trunk_codec",
    "cluster.recall",
    "cluster.standby",
    "cluster.start_hook",
    "cluster.stop_hook",
    "cluster.drain_after_s",
    "cluster.drain_deadline_s",
    "cluster.grow_at",
    "rooms.auto_create",
    "rooms.max_participants",
    "rooms.max_talkers",
    "rooms.span_at",
    "rooms.answer_after_ms",
    "rooms.names",
    "rooms.access",
    "rooms.policies",
    "rooms.control",
    "rooms.notify_ms",
    "http.listen",
    "log.level",
    "log.format",
    "trace.keep",
    "trace.hep",
    "trace.hep_id",
    "trace.hep_password",
];

/// Largest configuration file we read: the documented example is a fiftieth of it.
const FILE_LEN_MAX: u64 = 256 * 1024;
/// Most entries of a list.
const LIST_LEN_MAX: usize = 1_024;

/// A value as it was given.
#[derive(Debug)]
enum Value {
    /// From the file, with TOML's types.
    Toml(toml::Value),
    /// From the environment or the command line, where all is text.
    Text(String),
}

/// What was given, by key; a key not in it has its default.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<String, Value>);

/// Layers, lowest first.
impl Values {
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let name = path.display().to_string();
        let size = fs::metadata(path)
            .map_err(|error| ConfigError::new(&name, error.to_string()))?
            .len();
        if size > FILE_LEN_MAX {
            return Err(ConfigError::new(
                name,
                format!("{size} bytes; at most {FILE_LEN_MAX} are read"),
            ));
        }
        let text =
            fs::read_to_string(path).map_err(|error| ConfigError::new(&name, error.to_string()))?;
        self.add_toml(&name, &text)
    }

    pub(super) fn add_toml(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = 1 + text[..error.span().map_or(0, |span| span.start.min(text.len()))]
                .matches('\n')
                .count();
            ConfigError::new(format!("{name}:{line}"), error.message().replace('\n', " "))
        })?;
        self.add_table("", table)
    }

    fn add_table(&mut self, prefix: &str, table: toml::Table) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(table) if is_section(&key) => {
                    self.add_table(&format!("{key}."), table)?
                }
                value => self.insert(key, Value::Toml(value))?,
            }
        }
        Ok(())
    }

    /// `PLENUM_SECTION_KEY`. A variable that names a section but none of its keys is a mistake; one
    /// that names no section is somebody else's (orchestrators set `PLENUM_SERVICE_HOST` and the like).
    pub(super) fn add_environment(
        &mut self,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix("PLENUM_") else {
                continue;
            };
            if let Some(key) = KEYS
                .iter()
                .find(|key| key.replace('.', "_").to_uppercase() == name)
            {
                self.insert((*key).to_owned(), Value::Text(text))?;
            } else if name
                .split_once('_')
                .is_some_and(|(section, _)| is_section(&section.to_lowercase()))
            {
                return Err(ConfigError::new(variable, "unknown key"));
            }
        }
        Ok(())
    }

    /// `section.key=value`, split at the first `=`.
    pub(super) fn add_set(&mut self, set: &str) -> Result<(), ConfigError> {
        let Some((key, text)) = set.split_once('=') else {
            return Err(ConfigError::new(
                format!("--set {set}"),
                "expected section.key=value",
            ));
        };
        self.insert(key.trim().to_owned(), Value::Text(text.to_owned()))
    }

    fn insert(&mut self, key: String, value: Value) -> Result<(), ConfigError> {
        if is_section(&key) {
            let example = KEYS
                .iter()
                .find(|known| is_below(known, &key))
                .copied()
                .unwrap_or_default();
            return Err(ConfigError::new(
                &key,
                format!("is a section; give its keys, such as {example}"),
            ));
        }
        if !KEYS.contains(&key.as_str()) {
            return Err(ConfigError::new(key, "unknown key"));
        }
        self.0.insert(key, value);
        Ok(())
    }
}

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|known| is_below(known, key))
}

fn is_below(key: &str, section: &str) -> bool {
    key.strip_prefix(section)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// Typed values. A parser's error is the reason without the key.
impl Values {
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let text = match self.take(key) {
            None => default.to_owned(),
            Some(Value::Text(text) | Value::Toml(toml::Value::String(text))) => text,
            Some(Value::Toml(other)) => return Err(wrong_type(key, "a string", &other)),
        };
        parse(text.trim()).map_err(|reason| ConfigError::new(key, reason))
    }

    /// `""` is the default and means none.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.parsed(key, "", |text| {
            if text.is_empty() {
                Ok(None)
            } else {
                parse(text).map(Some)
            }
        })
    }

    pub(super) fn integer<T: TryFrom<u64>>(
        &mut self,
        key: &str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Result<T, ConfigError> {
        let number = match self.take(key) {
            None => i128::from(default),
            Some(Value::Toml(toml::Value::Integer(number))) => i128::from(number),
            Some(Value::Toml(other)) => return Err(wrong_type(key, "a whole number", &other)),
            Some(Value::Text(text)) => text
                .trim()
                .parse()
                .map_err(|_| ConfigError::new(key, format!("\"{text}\" is not a whole number")))?,
        };
        u64::try_from(number)
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                ConfigError::new(
                    key,
                    format!("{number} is not in {}-{}", range.start(), range.end()),
                )
            })
    }

    pub(super) fn weight(&mut self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let number = match self.take(key) {
            None => default,
            Some(Value::Toml(toml::Value::Float(number))) => number,
            Some(Value::Toml(toml::Value::Integer(number))) => number as f64,
            Some(Value::Toml(other)) => return Err(wrong_type(key, "a number", &other)),
            Some(Value::Text(text)) => text
                .trim()
                .parse()
                .map_err(|_| ConfigError::new(key, format!("\"{text}\" is not a number")))?,
        };
        if number.is_finite() && number >= 0.0 {
            Ok(number)
        } else {
            Err(ConfigError::new(
                key,
                format!("{number} is not a finite number of at least 0"),
            ))
        }
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Toml(toml::Value::Boolean(value))) => Ok(value),
            Some(Value::Toml(other)) => Err(wrong_type(key, "true or false", &other)),
            Some(Value::Text(text)) => text.trim().parse().map_err(|_| {
                ConfigError::new(key, format!("\"{text}\" is neither true nor false"))
            }),
        }
    }

    /// An array of strings in TOML, comma-separated as text; no entry may stand twice.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        default: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let entries: Vec<String> = match self.take(key) {
            None => default.iter().map(|entry| (*entry).to_owned()).collect(),
            Some(Value::Text(text)) if text.trim().is_empty() => Vec::new(),
            Some(Value::Text(text)) => text.split(',').map(str::to_owned).collect(),
            Some(Value::Toml(toml::Value::Array(entries))) => entries
                .into_iter()
                .map(|entry| match entry {
                    toml::Value::String(text) => Ok(text),
                    other => Err(wrong_type(key, "a list of strings", &other)),
                })
                .collect::<Result<_, _>>()?,
            Some(Value::Toml(other)) => return Err(wrong_type(key, "a list of strings", &other)),
        };
        if entries.len() > LIST_LEN_MAX {
            return Err(ConfigError::new(
                key,
                format!(
                    "{} entries; at most {LIST_LEN_MAX} are taken",
                    entries.len()
                ),
            ));
        }
        let mut list = Vec::with_capacity(entries.len());
        for entry in &entries {
            let value = parse(entry.trim()).map_err(|reason| ConfigError::new(key, reason))?;
            if list.contains(&value) {
                return Err(ConfigError::new(
                    key,
                    format!("{} stands twice", entry.trim()),
                ));
            }
            list.push(value);
        }
        Ok(list)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        assert!(
            KEYS.contains(&key),
            "{key} is read, so it must be listed in KEYS"
        );
        self.0.remove(key)
    }

    /// Keys that were given and never read: none, or a key stands in [`KEYS`] in vain.
    #[cfg(test)]
    pub(super) fn unread(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

fn wrong_type(key: &str, expected: &str, found: &toml::Value) -> ConfigError {
    let article = if matches!(found, toml::Value::Array(_) | toml::Value::Integer(_)) {
        "an"
    } else {
        "a"
    };
    ConfigError::new(
        key,
        format!("expected {expected}, not {article} {}", found.type_str()),
    )
}
