//! Who may call when the server asks for credentials: the users file.
//!
//! ```toml
//! [alice]
//! password = "open sesame"
//!
//! ["bob@example.org"]    # names with dots or other signs stand in quotes
//! ha1_sha256 = "..."     # printf '%s' 'bob@example.org:REALM:PASSWORD' | sha256sum
//! ha1_md5 = "..."        # the same by md5sum, for phones that cannot do SHA-256
//! ```
//! Hashes instead of a password keep it out of the file and belong to one realm; with one of them the
//! user can answer challenges of that algorithm only. Either way the file opens the server to who
//! reads it: only the server should. No message about it repeats a value.

use std::{collections::HashMap, fmt, fs, path::Path};

use sip::digest::{Secret, unhex};

/// Most users of a file.
pub const USERS_MAX: usize = 100_000;
/// Longest name in octets: it has to fit into a header with everything else.
const NAME_LEN_MAX: usize = 256;
/// Largest file we read, in octets: some 300 for each of [`USERS_MAX`].
const FILE_LEN_MAX: u64 = 32 * 1024 * 1024;

/// Users by name. Shows how many they are in `Debug`, and nothing else.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users(HashMap<String, Secret>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

/// Why there are no [`Users`]: one line that names file, user and key, or file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersError(String);

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsersError {}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// It cannot be read, is too large, or says something about a user that makes no sense.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let file = path.display();
        let unreadable = |error: std::io::Error| UsersError(format!("{file}: {error}"));
        let size = fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_LEN_MAX {
            return Err(UsersError(format!(
                "{file}: {size} bytes; at most {FILE_LEN_MAX} are read"
            )));
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text).map_err(|reason| UsersError(format!("{file}{reason}")))
    }

    /// What is known about a user.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.0.get(name)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The reason begins with what follows the file's name.
    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // The error's own display would print the line, and so the password in it.
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..start]
                .iter()
                .filter(|&&octet| octet == b'\n')
                .count();
            format!(":{line}: {}", error.message().replace('\n', " "))
        })?;
        if table.len() > USERS_MAX {
            return Err(format!(": {} users; at most {USERS_MAX}", table.len()));
        }
        let user = |(name, value): (String, toml::Value)| {
            let shown = name.escape_debug();
            let secret = match value {
                _ if name.is_empty() => Err(": a user without a name".to_owned()),
                _ if name.len() > NAME_LEN_MAX => Err(format!(
                    ": a user's name of {} octets; at most {NAME_LEN_MAX}",
                    name.len()
                )),
                _ if name.contains(|c: char| c.is_ascii_control()) => {
                    Err(format!(": {shown}: control characters in a user's name"))
                }
                toml::Value::Table(keys) => {
                    secret(keys).map_err(|reason| format!(": {shown}{reason}"))
                }
                _ => Err(format!(
                    ": {shown}: expected a section [{shown}] with its keys"
                )),
            };
            Ok((name, secret?))
        };
        table
            .into_iter()
            .map(user)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The reason begins with what follows the user's name.
fn secret(keys: toml::Table) -> Result<Secret, String> {
    let (mut password, mut sha256, mut md5) = (None, None, None);
    for (key, value) in keys {
        let shown = key.escape_debug();
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Table(_) => {
                return Err(format!(
                    ".{shown}: expected a string; a user's name with dots stands in quotes"
                ));
            }
            other => {
                return Err(format!(
                    ".{shown}: expected a string, got {}",
                    other.type_str()
                ));
            }
        };
        match key.as_str() {
            "password" if value.is_empty() => return Err(format!(".{shown}: empty")),
            "password" => password = Some(value),
            "ha1_sha256" => sha256 = Some(hash(&shown, &value)?),
            "ha1_md5" => md5 = Some(hash(&shown, &value)?),
            _ => {
                return Err(format!(
                    ".{shown}: unknown key; there are password, ha1_sha256 and ha1_md5"
                ));
            }
        }
    }
    match (password, sha256.is_some() || md5.is_some()) {
        (Some(password), false) => Ok(Secret::Password(password)),
        (None, true) => Ok(Secret::Ha1 { sha256, md5 }),
        (Some(_), true) => Err(".password: not together with a hash".to_owned()),
        (None, false) => Err(": neither password nor ha1_sha256 nor ha1_md5".to_owned()),
    }
}

fn hash<const N: usize>(key: impl fmt::Display, text: &str) -> Result<[u8; N], String> {
    unhex(text).ok_or_else(|| format!(".{key}: expected {} hexadecimal digits", 2 * N))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file that is gone at the end of the test.
    struct File(PathBuf);

    impl File {
        fn of(name: &str, content: &[u8]) -> Self {
            let name = format!("plenum-users-{}-{name}.toml", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn users_are_read() {
        let file = File::of(
            "good",
            format!(
                "# staff\n[alice]\npassword = \"open: \\\"sesame\\\" ü\"\n\n\
                 [\"bob@example.org\"]\nha1_sha256 = \"{}\"\nha1_md5 = \"{}\"\n[Alice]\n\
                 ha1_md5 = \"{}\"\n",
                "0a".repeat(32),
                "FF".repeat(16),
                "00".repeat(16),
            )
            .as_bytes(),
        );
        let users = Users::load(&file.0).unwrap();
        assert_eq!(users.len(), 3);
        assert_eq!(
            users.secret("alice"),
            Some(&Secret::Password("open: \"sesame\" ü".to_owned()))
        );
        assert_eq!(
            users.secret("bob@example.org"),
            Some(&Secret::Ha1 {
                sha256: Some([10; 32]),
                md5: Some([255; 16])
            })
        );
        assert_eq!(
            users.secret("Alice"),
            Some(&Secret::Ha1 {
                sha256: None,
                md5: Some([0; 16])
            })
        );
        assert_eq!(users.secret("bob"), None);
        assert_eq!(format!("{users:?}"), "Users(3)");
        assert!(Users::parse("").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, reason) in [
            ("[a]\n", ": a: neither password nor ha1_sha256 nor ha1_md5"),
            ("[a]\npassword = \"\"", ": a.password: empty"),
            (
                "[a]\npassword = 7",
                ": a.password: expected a string, got integer",
            ),
            (
                "[a]\npasswort = \"hush\"",
                ": a.passwort: unknown key; there are password, ha1_sha256 and ha1_md5",
            ),
            (
                "[a]\npassword = \"hush\"\nha1_md5 = \"00000000000000000000000000000000\"",
                ": a.password: not together with a hash",
            ),
            (
                "[a]\nha1_md5 = \"0000000000000000000000000000000\"",
                ": a.ha1_md5: expected 32 hexadecimal digits",
            ),
            (
                "[a]\nha1_md5 = \"+0000000000000000000000000000000\"",
                ": a.ha1_md5: expected 32 hexadecimal digits",
            ),
            (
                "[a]\nha1_sha256 = \"00000000000000000000000000000000\"",
                ": a.ha1_sha256: expected 64 hexadecimal digits",
            ),
            (
                "[a.b]\npassword = \"hush\"",
                ": a.b: expected a string; a user's name with dots stands in quotes",
            ),
            ("a = \"hush\"", ": a: expected a section [a] with its keys"),
            ("[\"\"]\npassword = \"hush\"", ": a user without a name"),
            (
                "[\"a\\nb\"]\npassword = \"hush\"",
                ": a\\nb: control characters in a user's name",
            ),
            ("[a]\npassword = \"hush\"\n[a]\n", ":3: duplicate key"),
            (
                "[a]\npassword = \"hush\"\npassword = \"hush\"",
                ":3: duplicate key",
            ),
        ] {
            assert_eq!(Users::parse(text), Err(reason.to_owned()), "{text}");
        }
        let long = format!("[{}]\npassword = \"hush\"", "a".repeat(257));
        assert_eq!(
            Users::parse(&long),
            Err(": a user's name of 257 octets; at most 256".to_owned())
        );
    }

    /// Wherever the text breaks, its password is not repeated, and one line says so.
    #[test]
    fn passwords_are_not_told() {
        let text = "[alice]\npassword = \"hush hush\"\nmore = \"ü\"\n";
        for (at, _) in text.char_indices() {
            for junk in ["", "\"", "=", "\n", "]", "\u{1}", "\\q", "hush = 'hush"] {
                let broken = format!("{}{junk}{}", &text[..at], &text[at..]);
                let Err(error) = Users::parse(&broken) else {
                    panic!("more is no key: {broken}");
                };
                assert!(!error.contains("hush hush"), "{error}");
                assert!(!error.contains('\n'), "{error}");
            }
        }
    }

    #[test]
    fn files_that_are_not_read() {
        let missing = Users::load(Path::new("/nonexistent/users.toml")).unwrap_err();
        assert!(missing.to_string().starts_with("/nonexistent/users.toml: "));
        let binary = File::of("binary", b"[a]\npassword = \"\xff\"");
        assert!(Users::load(&binary.0).is_err());
        let broken = File::of("broken", b"[a]\npassword = hush\n");
        let error = Users::load(&broken.0).unwrap_err().to_string();
        let place = format!("{}:2: ", broken.0.display());
        assert!(error.starts_with(&place), "{error}");
    }

    #[test]
    fn there_is_a_limit() {
        let users = |count: usize| -> String {
            (0..count)
                .map(|user| format!("u{user} = {{ password = \"p\" }}\n"))
                .collect()
        };
        assert_eq!(Users::parse(&users(USERS_MAX)).unwrap().len(), USERS_MAX);
        assert_eq!(
            Users::parse(&users(USERS_MAX + 1)),
            Err(": 100001 users; at most 100000".to_owned())
        );
    }
}
