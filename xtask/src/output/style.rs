//! Colour: whether it is wanted, where it is put, and that nothing else of a terminal's language passes.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// Whether a stream shows colour: `NO_COLOR`, `CLICOLOR_FORCE`, `TERM` and the terminal decide, in this order.
pub(super) fn is_wanted(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// What a line begins with, and the colour of that.
const MARKS: [(&str, Style); 9] = [
    ("✓", AnsiColor::Green.on_default()),
    ("✗", AnsiColor::Red.on_default()),
    ("!", AnsiColor::Yellow.on_default()),
    ("=", AnsiColor::BrightBlack.on_default()),
    ("…", AnsiColor::Cyan.on_default()),
    ("error:", AnsiColor::Red.on_default().bold()),
    ("interrupted:", AnsiColor::Yellow.on_default().bold()),
    ("warning:", AnsiColor::Yellow.on_default().bold()),
    ("hint:", AnsiColor::Cyan.on_default().bold()),
];

/// The text with the mark or word that each of its lines begins with in colour.
pub(super) fn painted(text: &str) -> String {
    let mut all = String::new();
    for line in text.split_inclusive('\n') {
        match MARKS.iter().find(|(mark, _)| line.starts_with(mark)) {
            Some((mark, style)) => {
                let _ = write!(all, "{style}{mark}{style:#}{}", &line[mark.len()..]);
            }
            None => all.push_str(line),
        }
    }
    all
}

/// Text that is fit for a terminal, whoever wrote it: colours are dropped, and every other character that could move a
/// cursor, set a title or turn the order of the letters is written out.
pub(super) fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut all = String::new();
    let mut rest = text;
    while let Some((before, _, after)) = next_colour(rest) {
        write_out(&mut all, before);
        rest = after;
    }
    write_out(&mut all, rest);
    Cow::Owned(all)
}

/// Writes each unsafe character as JSON would.
fn write_out(all: &mut String, text: &str) {
    for c in text.chars() {
        if is_unsafe(c) {
            let _ = write!(all, "\\u{:04x}", u32::from(c));
        } else {
            all.push(c);
        }
    }
}

/// C0, DEL and C1 but for the end of a line and the tab; what turns the direction of text, or has no width.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(
            c,
            '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{2060}' | '\u{feff}'
        )
        || matches!(c, '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The line without any escape sequence.
pub(crate) fn plain(line: &str) -> String {
    safe(&strip_str(line).to_string()).into_owned()
}

/// The line with its colours, and without any other escape sequence.
pub(super) fn only_colour(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, colour, after)) = next_colour(rest) {
        let _ = write!(text, "{}{colour}", plain(before));
        rest = after;
    }
    text.push_str(&plain(rest));
    if text.contains('\x1b') {
        text.push_str("\x1b[0m");
    }
    text
}

/// The first sequence that sets colours (`ESC [ … m`), with what is before and behind it.
fn next_colour(text: &str) -> Option<(&str, &str, &str)> {
    let starts = text.match_indices("\x1b[").map(|(start, _)| start);
    starts.into_iter().find_map(|start| {
        let parameters = text[start + 2..].find(|c: char| !c.is_ascii_digit() && !";:".contains(c))?;
        let end = start + 2 + parameters;
        text[end..].starts_with('m').then(|| (&text[..start], &text[start..=end], &text[end + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_of_a_line_is_in_colour() {
        let text = painted("✓ image  built\n  → ! inside\nhint: try again\n");
        assert_eq!(
            text,
            "\x1b[32m✓\x1b[0m image  built\n  → ! inside\n\x1b[1m\x1b[36mhint:\x1b[0m try again\n"
        );
    }

    #[test]
    fn nothing_that_a_terminal_obeys_passes() {
        for (text, wanted) in [
            ("a line\n\tand a tab, ✓", "a line\n\tand a tab, ✓"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[2J\x1b]0;title\x07", r"\u001b[2J\u001b]0;title\u0007"),
            ("over\rwritten\x08", r"over\u000dwritten\u0008"),
            ("\u{9b}2J \u{9d}0;t\u{9c}", r"\u009b2J \u009d0;t\u009c"),
            ("\u{202e}gpj.exe \u{2066}\u{200b}\x7f", r"\u202egpj.exe \u2066\u200b\u007f"),
            // An open sequence swallows nothing of what follows.
            ("\x1b]0;\nerror: the cause", "\\u001b]0;\nerror: the cause"),
        ] {
            assert_eq!(safe(text), wanted);
        }
    }

    #[test]
    fn of_a_childs_escapes_only_its_colours_stay() {
        let line = "\x1b[2K\x1b[1m\x1b[38;5;9merror\x1b[0m: \x1b]0;title\x07no\x1b[31";
        assert_eq!(only_colour(line), "\x1b[1m\x1b[38;5;9merror\x1b[0m: no\x1b[0m");
        assert_eq!(plain(line), "error: no");
        assert_eq!(only_colour("plain"), "plain");
    }
}
