//! Words of others in Markdown: nothing in them is markup.

use crate::output::plain;

/// Words in a table's cell: no markup, no HTML, one line.
pub fn cell(text: &str) -> String {
    plain(text).chars().fold(String::new(), |mut cell, c| {
        match c {
            '\n' | '\r' => cell.push(' '),
            '<' => cell.push_str("&lt;"),
            '&' => cell.push_str("&amp;"),
            c if "\\`*_{}[]()#+!|~@".contains(c) => cell.extend(['\\', c]),
            c => cell.push(c),
        }
        cell
    })
}

/// Lines in a block of their own, as they are: no line of them can end it.
pub fn block(text: &str) -> String {
    let text = plain(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{text}\n{fence}\n")
}
