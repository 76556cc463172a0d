//! Recordings as text, one line for each stack: `thread;main;caller;callee 17`, the form that every
//! flamegraph tool reads.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

use inferno::{differential, flamegraph};

/// How often each stack was seen. Stacks are told apart by names alone, without addresses and lines, so
/// that recordings of two builds can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded(BTreeMap<String, u64>);

/// A line that is no stack with a count.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFolded {
    pub line: usize,
}

impl fmt::Display for NotFolded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is not FRAME;FRAME;... COUNT", self.line)
    }
}

impl std::error::Error for NotFolded {}

impl Folded {
    /// Counts a stack of which `frames` are the names, the outermost first.
    pub fn add<'a>(&mut self, frames: impl IntoIterator<Item = &'a str>, count: u64) {
        let mut stack = String::new();
        for frame in frames {
            if !stack.is_empty() {
                stack.push(';');
            }
            push_name(&mut stack, frame);
        }
        *self.0.entry(stack).or_default() += count;
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The picture.
    ///
    /// # Errors
    /// Drawing failed.
    pub fn draw(&self) -> io::Result<Vec<u8>> {
        if self.is_empty() {
            // A process that did nothing has a picture too.
            let mut idle = Self::default();
            idle.add(["no samples: nobody was running"], 1);
            return idle.draw();
        }
        draw(&mut flamegraph::Options::default(), &self.to_string())
    }

    /// The picture of this recording, each frame coloured by how its share differs from that in `before`:
    /// red for more, blue for less. Widths are those of this recording, so that what has vanished is in
    /// the picture with the two exchanged.
    ///
    /// # Errors
    /// Drawing failed.
    pub fn draw_against(&self, before: &Self) -> io::Result<Vec<u8>> {
        if self.is_empty() {
            return self.draw();
        }
        // Shares are compared: one recording may be longer than the other.
        let options = differential::Options {
            normalize: true,
            strip_hex: false,
        };
        let mut lines = Vec::new();
        let (before, after) = (before.to_string(), self.to_string());
        differential::from_readers(options, before.as_bytes(), after.as_bytes(), &mut lines)?;
        let lines = String::from_utf8(lines).map_err(io::Error::other)?;
        let mut options = flamegraph::Options::default();
        options.title = "Flame Graph: more (red) and less (blue) than before".to_owned();
        draw(&mut options, &lines)
    }
}

/// Characters that separate frames and lines give way; the number that the linker may append to a name
/// differs from build to build.
fn push_name(stack: &mut String, name: &str) {
    let name = name.split(".llvm.").next().unwrap_or(name);
    stack.extend(name.chars().map(|letter| match letter {
        ';' => ',',
        '\n' | '\r' => ' ',
        other => other,
    }));
}

fn draw(options: &mut flamegraph::Options<'_>, lines: &str) -> io::Result<Vec<u8>> {
    // The same function has the same colour in every picture.
    options.deterministic = true;
    let mut svg = Vec::new();
    flamegraph::from_lines(options, lines.lines(), &mut svg).map_err(io::Error::other)?;
    Ok(svg)
}

impl fmt::Display for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(stack, count)| writeln!(f, "{stack} {count}"))
    }
}

impl FromStr for Folded {
    type Err = NotFolded;

    fn from_str(text: &str) -> Result<Self, NotFolded> {
        let mut folded = Self::default();
        for (index, line) in text.lines().enumerate() {
            let (stack, count) = line
                .rsplit_once(' ')
                .and_then(|(stack, count)| Some((stack, count.parse().ok()?)))
                .filter(|(stack, _)| !stack.is_empty())
                .ok_or(NotFolded { line: index + 1 })?;
            folded.add(stack.split(';'), count);
        }
        Ok(folded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Folded {
        text.parse().unwrap()
    }

    /// The `<g>` of the frame with this name: its title and its rectangle.
    fn frame<'a>(svg: &'a str, name: &str) -> &'a str {
        let frames = || svg.split("<g>").skip(1);
        frames()
            .find(|frame| frame.starts_with(&format!("<title>{name} (")))
            .unwrap_or_else(|| panic!("no {name} in {svg}"))
    }

    /// Red, green and blue.
    fn colour(frame: &str) -> [u8; 3] {
        let list = frame.split_once("fill=\"rgb(").unwrap().1;
        let mut parts = list.split(')').next().unwrap().split(',');
        [(); 3].map(|()| parts.next().unwrap().parse().unwrap())
    }

    #[test]
    fn stacks_of_one_name_are_one_line() {
        let mut folded = Folded::default();
        folded.add(["shard-0", "main", "mix"], 2);
        folded.add(["shard-0", "main", "encode::<[u8; 4]>.llvm.8812"], 1);
        folded.add(["shard-0", "main", "mix"], 3);
        let text = "shard-0;main;encode::<[u8, 4]> 1\nshard-0;main;mix 5\n";
        assert_eq!(folded.to_string(), text);
        assert_eq!(text.parse(), Ok(folded));
    }

    #[test]
    fn what_is_not_folded_is_told_by_line() {
        for (text, line) in [
            ("<svg>\n", 1),
            ("a;b 1\na;b\n", 2),
            ("a 1\n 1\n", 2),
            ("a -1", 1),
        ] {
            assert_eq!(text.parse::<Folded>(), Err(NotFolded { line }), "{text}");
        }
        assert_eq!("".parse(), Ok(Folded::default()));
    }

    #[test]
    fn the_picture_has_every_function() {
        let svg = String::from_utf8(folded("main;mix 1\nmain;encode 3\n").draw().unwrap()).unwrap();
        assert!(frame(&svg, "encode").contains("75.00%"));
        assert!(frame(&svg, "mix").contains("25.00%"));
        let idle = String::from_utf8(Folded::default().draw().unwrap()).unwrap();
        assert!(idle.contains("no samples"));
        let against = Folded::default().draw_against(&folded("main;mix 1\n"));
        assert!(against.unwrap() == idle.into_bytes(), "the same picture");
    }

    #[test]
    fn a_difference_is_red_where_more_and_blue_where_less() {
        let before = folded("main;mix 50\nmain;encode 30\nmain;send 20\n");
        // Twice as long a recording, in which only the shares of two functions have changed.
        let after = folded("main;mix 100\nmain;encode 80\nmain;send 20\n");
        let svg = String::from_utf8(after.draw_against(&before).unwrap()).unwrap();
        let [red, green, blue] = colour(frame(&svg, "encode"));
        assert!(red > green && green == blue, "{}", frame(&svg, "encode"));
        assert!(frame(&svg, "encode").contains("+10.00%"));
        let [red, green, blue] = colour(frame(&svg, "send"));
        assert!(blue > green && green == red, "{}", frame(&svg, "send"));
        assert!(frame(&svg, "send").contains("-10.00%"));
        let [red, green, blue] = colour(frame(&svg, "mix"));
        assert!(red == green && green == blue, "{}", frame(&svg, "mix"));
    }
}
