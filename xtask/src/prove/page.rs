//! What the protections are worth as one page of HTML, in the style of a run's report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, html};

use super::worth::{Cell, Row, Worth};
use super::{ProveArgs, REQUEST};
use crate::clusters::Cluster;
use crate::record::REPORT;
use crate::report::document_head;
use crate::share::thousands;

/// Nothing is fetched, and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Leaves the page in the run's folder.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(
    dir: &Path,
    cluster: &Cluster,
    args: &ProveArgs,
    worth: &Worth<'_>,
    took: Duration,
) -> Result<PathBuf> {
    let how = format!(
        "{} on {} (context {}): {}/s for {} s a run",
        args.request.or_get(REQUEST).line(),
        cluster.kind.name(),
        cluster.context,
        args.rate,
        args.duration.as_secs_f64()
    );
    let path = dir.join(REPORT);
    std::fs::write(&path, page(&how, worth, took).into_string())
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn page(how: &str, worth: &Worth<'_>, took: Duration) -> Markup {
    let proven = worth.rows.iter().filter(|row| row.is_proven()).count();
    html! {
        (DOCTYPE)
        html lang="en" {
            (document_head("What each protection is worth", POLICY, include_str!("style.css")))
            body {
                main {
                    header {
                        h1 { "What each protection is worth" }
                        p.verdict { (proven) " of " (worth.rows.len()) " differences are more than chance" }
                        p.facts { (how) }
                        p.facts {
                            (Timestamp::now().strftime("%Y-%m-%d %H:%M UTC")) ", " (took.as_secs()) " s"
                        }
                    }
                    section {
                        h2 { "In words" }
                        ul.worth {
                            @for row in &worth.rows {
                                li {
                                    (row.sentence())
                                    @if !row.is_proven() { " " span.facts { "(may be chance)" } }
                                }
                            }
                        }
                    }
                    section { h2 { "In numbers" } (table(worth)) }
                    @if !worth.unmeasured.is_empty() {
                        section {
                            h2 { "Not measured" }
                            ul.worth { @for (what, why) in &worth.unmeasured { li { (what) ": " (why) } } }
                        }
                    }
                    footer {
                        "A bar is the share of requests that failed, and behind it the upper end of its 95 % "
                        "interval (Wilson's, as much wider as the runs differ by more than single requests "
                        "would). Each run is kept beside this page's folder."
                    }
                }
            }
        }
    }
}

fn table(worth: &Worth<'_>) -> Markup {
    let cells = worth.rows.iter().flat_map(|row| row.with.into_iter().chain([row.without]));
    let most = cells.map(|cell| cell.share().high).fold(1e-6, f64::max);
    html! {
        div.wide {
            table {
                thead {
                    tr {
                        th scope="col" { "protection" } th scope="col" { "occasion" } th scope="col" { "" }
                        th scope="col" { "failed" } th scope="col" { "of" }
                        th scope="col" { "after a lost try" } th scope="col" { "p99" }
                        th scope="col" { "runs" } th scope="col" { "share, 95 % interval" }
                    }
                }
                tbody { @for row in &worth.rows { (lines(row, most)) } }
            }
        }
    }
}

fn lines(row: &Row<'_>, most: f64) -> Markup {
    html! {
        tr {
            th scope="row" { (row.protection.name()) } td { (row.occasion.words()) }
            td { "without" } (figures(row.without, most))
        }
        @if let Some(with) = row.with {
            tr { th scope="row" {} td {} td { "with" } (figures(with, most)) }
        }
    }
}

fn figures(cell: &Cell, most: f64) -> Markup {
    let share = cell.share();
    let width = |share: f64| format!("width:{:.2}%", share / most * 100.0);
    html! {
        td { (thousands(share.some)) } td { (thousands(share.of)) } td { (thousands(cell.late)) }
        td { @if let Some(ms) = cell.p99() { (format!("{ms:.0} ms")) } @else { "–" } }
        td { (cell.runs.len()) }
        td.bar {
            (format!("{:.2} % ({:.2}–{:.2})", share.value() * 100.0, share.low * 100.0, share.high * 100.0))
            div.share aria-hidden="true" {
                i.high style=(width(share.high)) {} i.value style=(width(share.value())) {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::worth::Occasion;
    use super::*;
    use crate::load::experiment::Protection;

    #[test]
    fn the_page_is_whole_without_a_network_and_takes_any_words() {
        let mut odd = Cell::new(Occasion::ControllerStart, Some(Protection::Gates));
        odd.runs = vec![(50, 50)];
        let mut lost = Cell::new(Occasion::ControllerStart, None);
        lost.impossible = Some("<script>alert(1)</script>".to_owned());
        let cells = [odd, lost];
        let text = page("GET /<b>", &Worth::of(&cells), Duration::from_secs(3)).into_string();
        assert!(!text.contains("<script") && !text.contains("<b>") && !text.contains("http://"), "{text}");
        assert!(text.contains("100.0 % of requests fail while the ingress controller starts"), "{text}");
    }
}
