//! Where the time of the slowest answers went, and what is known of requests of one mechanism.

use maud::{Markup, html};

use super::{MOST_GROUPS, head, quoted, row};
use crate::explain::slowest::Slowest;
use crate::explain::{self, Verdict};

/// The slowest answers: a table of their causes, and the evidence of each.
pub(super) fn slowest(slow: &Slowest) -> Markup {
    let groups = slow.groups();
    html! {
        @if !groups.is_empty() {
            section {
                h2 { "Where the time of the slowest answers went" }
                p.facts { (slow.headline()) @if let Some(more) = slow.more() { "; " (more) } }
                table {
                    (head(&["cause", "answers", "took", "most of it"]))
                    tbody {
                        @for group in &groups {
                            (row(
                                group.mechanism.title(),
                                &[group.answers.len().to_string(), group.range(), group.most()],
                            ))
                        }
                    }
                }
                @for group in groups.iter().take(MOST_GROUPS) {
                    details {
                        summary { (group.answers.len()) " × " (group.mechanism.title()) }
                        dl {
                            dt { "mechanism" } dd { code { (group.mechanism.name()) } }
                            dt { "time" }
                            dd {
                                (group.parts().line())
                                @if group.answers.len() > 1 { " (the middle of each)" }
                            }
                            (details(&group.verdicts()))
                        }
                    }
                }
            }
        }
    }
}

/// What is known of requests of one mechanism, with the evidence of the first.
pub(super) fn details(group: &[&Verdict]) -> Markup {
    let first = group[0];
    let ids: Vec<&str> = group.iter().take(5).map(|verdict| verdict.record.id.as_str()).collect();
    let pods: Vec<String> =
        explain::pods(group).into_iter().map(|(pod, count)| format!("{count} × {pod}")).collect();
    let rejected: Vec<String> =
        first.rejected.iter().map(|(mechanism, why)| format!("{}: {why}", mechanism.name())).collect();
    html! {
        @if !pods.is_empty() { dt { "pods" } dd { (quoted(&pods)) } }
        dt { "evidence" } dd { (quoted(&first.evidence)) }
        @if !rejected.is_empty() { dt { "rejected" } dd { (quoted(&rejected)) } }
        @if !first.missing.is_empty() { dt { "missing" } dd { (quoted(&first.missing)) } }
        dt { "fix" } dd { (first.fix) }
        dt { "requests" }
        dd {
            code { (ids.join(" ")) }
            @if group.len() > ids.len() { " and " (group.len() - ids.len()) " more" }
        }
    }
}
