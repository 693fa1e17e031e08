//! The report of a run as one page of HTML that needs nothing else: no network, no other file. It stays small whatever
//! the number of requests, because it is drawn from slices of time. `maud` escapes all that goes into it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::explain::{Explained, explain_run};
use crate::record::meta::End;
use crate::record::run::Run;
use crate::record::timeline::Timeline;
use crate::record::{RECORDS, REPORT, is_load, seen};
use crate::summary::Summary;
use series::Series;

mod axis;
mod environment;
mod events;
mod leave;
mod lives;
mod load;
mod markdown;
mod pipeline;
mod plot;
mod series;
mod several;
mod slowest;
pub mod text;

pub use leave::leave;

/// Groups of requests that are spelled out.
const MOST_GROUPS: usize = 50;
/// Characters of a quoted line.
const MOST_QUOTED: usize = 1000;
/// Lines of one piece of evidence.
const MOST_LINES: usize = 100;

/// Draws the run in `dir`, and leaves the page there. `summary` is what the run's events will end with, where they do
/// not yet.
///
/// # Errors
/// When the page can't be written.
pub fn write(dir: &Path, summary: Option<Summary>) -> Result<PathBuf> {
    let run = Run::read(dir, summary);
    // A load that had not begun is told as its steps are.
    let explained = if is_load(dir) { explain_run(dir).ok() } else { None };
    let end = explained.as_ref().and_then(|explained| explained.meta.end.clone());
    let load = match (&explained, &end) {
        (Some(explained), Some(end)) => {
            let series = Series::read(&dir.join(RECORDS), end.seconds, end.scheduled)?;
            Some(Load { end, explained, series })
        }
        _ => None,
    };
    let seen = if explained.is_some() { Vec::new() } else { seen(dir, None).0 };
    let alone = Timeline::new(seen);
    let timeline = explained.as_ref().map_or(&alone, |explained| &explained.timeline);
    let page = Page { run: &run, timeline, load: load.as_ref() };
    let path = dir.join(REPORT);
    std::fs::write(&path, page.html().into_string())
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// What the page shows.
struct Page<'p> {
    run: &'p Run,
    timeline: &'p Timeline,
    load: Option<&'p Load<'p>>,
}

/// A load, as it was measured and explained.
struct Load<'p> {
    end: &'p End,
    explained: &'p Explained,
    series: Series,
}

impl Page<'_> {
    /// The verdict, as every other place has it: a load's is its own, unless something else failed behind it.
    fn headline(&self) -> String {
        match self.load {
            Some(load) if matches!(self.run.exit_code(), None | Some(0 | 40 | 41 | 130)) => {
                load.end.headline()
            }
            _ => self.run.headline(),
        }
    }

    fn is_good(&self) -> bool {
        self.headline().starts_with('✓')
    }

    /// What the run should have left and has not, or did not see.
    fn gaps(&self) -> Vec<&String> {
        let of_load = self.load.iter().flat_map(|load| load.end.gaps.iter().chain(&load.explained.missing));
        let mut gaps: Vec<_> = self.run.asked.gaps.iter().chain(of_load).collect();
        gaps.dedup();
        gaps
    }

    fn html(&self) -> Markup {
        // What runs is what carries this number, which nobody knew who is quoted on the page.
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let policy = format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'");
        let name = &self.run.name;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (clip(&self.headline())) " – " (name) }
                    style { (PreEscaped(include_str!("report/style.css"))) }
                }
                body {
                    main {
                        (self.header())
                        @if self.load.is_none() { (self.failure()) }
                        @if let Some(load) = self.load { (load.sections(self.timeline)) }
                        (self.several())
                        (self.pipeline())
                        (self.events())
                        (self.environment())
                        (self.for_others())
                        footer {
                            "Shown again by " code { "cargo xtask explain " (name) }
                            ", from the records beside this page."
                        }
                    }
                    @if let Some(load) = self.load {
                        script type="application/json" id="slices" { (PreEscaped(load.slices())) }
                    }
                    script nonce=(nonce) { (PreEscaped(include_str!("report/script.js"))) }
                }
            }
        }
    }

    fn header(&self) -> Markup {
        let Run { asked, seconds, name, .. } = self.run;
        let mood = if self.is_good() { "good" } else { "bad" };
        let command = if asked.command.is_empty() { "load" } else { asked.command.as_str() };
        html! {
            header {
                p.kind { "cargo xtask " (command) }
                h1.(mood) { (clip(&self.headline())) }
                @if let Some(load) = self.load { (load.facts()) }
                p.facts {
                    "Run " (name)
                    @if !asked.line.is_empty() {
                        ", began " (asked.began.strftime("%Y-%m-%d %H:%M:%S UTC"))
                        ", took " (format!("{seconds:.1} s"))
                    }
                }
                @for gap in self.gaps() { p.facts.bad { "Missing: " (clip(gap)) } }
                p.actions {
                    button type="button" data-copy="markdown" { "Copy as Markdown" }
                    span role="status" {}
                }
            }
        }
    }

    /// Why a run failed that is not a load's: all that the failure brought along.
    fn failure(&self) -> Markup {
        let run = self.run;
        let Some(error) = run.told("error") else { return html! {} };
        let waits = run.unfinished().filter_map(|step| Some((step.title(), step.wait_at(f64::MAX)?)));
        let waits: Vec<_> = waits.map(|(title, wait)| format!("{title}: {wait}")).collect();
        html! {
            section {
                h2 { "What went wrong" }
                // Its first line is the page's headline.
                @if error.lines().count() > 1 { p.error { (clip(error)) } }
                @if let Some(hint) = run.told("hint") { p.hint { "What to try: " (clip(hint)) } }
                @if !waits.is_empty() { h3 { "What was waited for" } (quoted(&waits)) }
                @for (heading, lines) in run.evidence() {
                    details open {
                        summary { (clip(&heading)) }
                        (quoted(lines.iter().take(MOST_LINES)))
                        (more(lines.len(), MOST_LINES, "lines"))
                    }
                }
            }
        }
    }

    /// The same in short, to be pasted elsewhere.
    fn for_others(&self) -> Markup {
        html! {
            section.again {
                details {
                    summary { "This run as Markdown" }
                    pre id="markdown" tabindex="0" { (self.markdown()) }
                }
            }
        }
    }
}

fn quoted<'l>(lines: impl IntoIterator<Item = &'l String>) -> Markup {
    html! { ul.quoted { @for line in lines { li { (clip(line)) } } } }
}

/// What is not shown of so many.
fn more(count: usize, shown: usize, what: &str) -> Markup {
    html! { @if count > shown { p.facts { "and " (count - shown) " more " (what) } } }
}

/// The head of a table.
fn head(columns: &[&str]) -> Markup {
    let cell = |column: &str| html! { @if column.is_empty() { td {} } @else { th scope="col" { (column) } } };
    html! { thead { tr { @for column in columns { (cell(column)) } } } }
}

/// A row of a table: its name, and what belongs to it.
fn row(name: &str, cells: &[String]) -> Markup {
    html! { tr { th scope="row" { (clip(name)) } @for cell in cells { td { (clip(cell)) } } } }
}

fn clip(line: &str) -> String {
    match line.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn ms(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0} ms") } else { format!("{value:.1} ms") }
}
