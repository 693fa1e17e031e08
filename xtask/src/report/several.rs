//! What several loads came to together: what each protection is worth, and how far repeated runs are apart.

use maud::{Markup, html};

use super::{Page, clip, head, ms};
use crate::record::proof::{Measured, Proof, Worth};
use crate::record::spread::{Part, Row, Spread};
use crate::share::thousands;

/// The columns of the protections' table.
const WORTH: [&str; 9] =
    ["protection", "occasion", "", "failed", "of", "after a lost try", "p99", "runs", "share, 95 % interval"];

impl Page<'_> {
    pub(super) fn several(&self) -> Markup {
        html! {
            @if let Some(proof) = self.run.proof() { (worth(&proof)) }
            @if let Some(spread) = self.run.spread() { (apart(&spread)) }
        }
    }
}

fn worth(proof: &Proof) -> Markup {
    html! {
        section {
            h2 { "What each protection is worth" }
            p.facts { (proof.load) }
            ul.worth {
                @for row in &proof.rows {
                    li { (row.sentence) @if !row.proven { " " span.facts { "(may be chance)" } } }
                }
            }
            @if proof.rows.is_empty() {
                p { "Nothing was measured to its end." }
            } @else {
                (protections(proof))
                p.facts {
                    "A bar is the share of requests that failed, and behind it the upper end of its 95 % "
                    "interval (Wilson's, as much wider as the runs differ by more than single requests "
                    "would). Each run has a page of its own, in a folder beside this one."
                }
            }
        }
        @if !proof.not_measured.is_empty() {
            section {
                h2 { "Not measured" }
                ul.worth { @for one in &proof.not_measured { li { (one.what) ": " (clip(&one.why)) } } }
            }
        }
    }
}

fn protections(proof: &Proof) -> Markup {
    let all = proof.rows.iter().flat_map(|row| row.with.iter().chain([&row.without]));
    let most = all.map(|measured| measured.interval[1]).fold(1e-6, f64::max);
    html! {
        div.scrolls tabindex="0" role="region" aria-label="What each protection is worth" {
            table.protections {
                (head(&WORTH))
                tbody { @for row in &proof.rows { (lines(row, most)) } }
            }
        }
    }
}

fn lines(row: &Worth, most: f64) -> Markup {
    html! {
        tr {
            th scope="row" { (row.protection) } td { (row.occasion) }
            td { "without" } (figures(&row.without, most))
        }
        @if let Some(with) = &row.with {
            tr {
                th scope="row" { span.unseen { (row.protection) } } td {} td { "with" } (figures(with, most))
            }
        }
    }
}

fn figures(measured: &Measured, most: f64) -> Markup {
    let Measured { failed, requests, share, interval: [low, high], late, p99_ms, runs, .. } = measured;
    let width = |share: f64| format!("width:{:.2}%", share / most * 100.0);
    html! {
        td { (thousands(*failed)) } td { (thousands(*requests)) } td { (thousands(*late)) }
        td { (p99_ms.map_or_else(|| "–".to_owned(), ms)) }
        td { (runs) }
        td.share {
            (format!("{:.2} % ({:.2}–{:.2})", share * 100.0, low * 100.0, high * 100.0))
            div aria-hidden="true" { i.high style=(width(*high)) {} i.value style=(width(*share)) {} }
        }
    }
}

fn apart(spread: &Spread) -> Markup {
    html! {
        section.tables {
            div {
                h2 { "How far the runs are apart" }
                table {
                    (head(&["", "median", "least", "most", "spread"]))
                    tbody { @for row in &spread.rows { (figure(row)) } }
                }
            }
            div {
                h2 { "Run by run" }
                div.scrolls tabindex="0" role="region" aria-label="Run by run" {
                    table {
                        (head(&["run", "verdict", "succeeded", "of", "p50", "p99", "took"]))
                        tbody { @for part in &spread.runs { (run(part)) } }
                    }
                }
            }
        }
    }
}

fn figure(row: &Row) -> Markup {
    html! { tr { th scope="row" { (row.name) } @for cell in row.cells() { td { (cell) } } } }
}

fn run(part: &Part) -> Markup {
    let name = part.run.file_name().unwrap_or_default().to_string_lossy();
    let mood = if part.verdict == "passed" { "good" } else { "bad" };
    let latency = |pick: fn(&xtask_load::tally::Latency) -> f64| {
        part.latency_ms.as_ref().map_or_else(|| "–".to_owned(), |latency| ms(pick(latency)))
    };
    html! {
        tr {
            // The folders lie beside each other, wherever they are taken.
            th scope="row" { a href=(format!("../{name}/report.html")) { (name) } }
            td.(mood) { (part.verdict) }
            td { (part.buckets.ok) } td { (part.scheduled) }
            td { (latency(|l| l.p50)) } td { (latency(|l| l.p99)) }
            td { (format!("{:.1} s", part.seconds)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::proof::NotMeasured;

    #[test]
    fn protections_are_told_and_take_any_words() {
        let without = Measured {
            failed: 50,
            requests: 50,
            share: 1.0,
            interval: [0.93, 1.0],
            late: 0,
            p99_ms: None,
            runs: 1,
            mechanisms: BTreeMap::new(),
        };
        let row = Worth {
            protection: "gates".to_owned(),
            occasion: "while the ingress controller starts".to_owned(),
            without,
            with: None,
            proven: false,
            sentence: "without gates 100.0 % of requests fail".to_owned(),
        };
        let lost = NotMeasured { what: "<b>".to_owned(), why: "<script>alert(1)</script>".to_owned() };
        let proof = Proof { load: "GET /<b>".to_owned(), rows: vec![row], not_measured: vec![lost] };
        let text = worth(&proof).into_string();
        assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
        assert!(
            text.contains("without gates 100.0 % of requests fail") && text.contains("may be chance"),
            "{text}"
        );
        assert!(text.contains("width:100.00%"), "{text}");
    }
}
