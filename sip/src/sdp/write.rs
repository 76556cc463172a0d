//! A description as text, in the line order of RFC 8866 section 5, with CRLF line ends.

use std::fmt;

use super::{Attribute, Direction, Media, SessionDescription};

impl fmt::Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = &self.origin;
        write!(
            f,
            "v=0\r\no={} {} {} {}\r\ns={}\r\n",
            origin.username, origin.session_id, origin.version, origin.address, self.session_name
        )?;
        if let Some(host) = &self.connection {
            write!(f, "c={host}\r\n")?;
        }
        for (start, stop) in &self.times {
            write!(f, "t={start} {stop}\r\n")?;
        }
        write_attributes(f, &self.attributes, self.direction)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {}", self.kind, self.port)?;
        if self.port_count != 1 {
            write!(f, "/{}", self.port_count)?;
        }
        write!(f, " {}", self.protocol)?;
        for format in &self.formats {
            write!(f, " {format}")?;
        }
        f.write_str("\r\n")?;
        if let Some(host) = &self.connection {
            write!(f, "c={host}\r\n")?;
        }
        write_attributes(f, &self.attributes, self.direction)
    }
}

fn write_attributes(
    f: &mut fmt::Formatter<'_>,
    attributes: &[Attribute],
    direction: Option<Direction>,
) -> fmt::Result {
    for Attribute { name, value } in attributes {
        match value {
            Some(value) => write!(f, "a={name}:{value}\r\n")?,
            None => write!(f, "a={name}\r\n")?,
        }
    }
    match direction {
        Some(direction) => write!(f, "a={}\r\n", direction.name()),
        None => Ok(()),
    }
}
