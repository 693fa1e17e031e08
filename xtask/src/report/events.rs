//! What the cluster told meanwhile.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::{Page, clip, head};
use crate::record::earlier;
use crate::record::timeline::EventSeen;

/// Events that are listed, the last ones.
const MOST: usize = 200;

impl Page<'_> {
    /// The moment from which the page counts its seconds: a load's first request, or the run's beginning.
    pub(super) fn zero(&self) -> Timestamp {
        self.load.map_or(self.run.asked.began, |load| load.explained.meta.began)
    }

    pub(super) fn events(&self) -> Markup {
        let zero = self.zero();
        // What was there long before is no news.
        let from = self.run.asked.began.max(earlier(zero, SignedDuration::from_mins(10)));
        let events = self.timeline.events_from(from);
        if events.is_empty() {
            return html! {};
        }
        let left_out = events.len().saturating_sub(MOST);
        let at = |event: &EventSeen| format!("{:.1} s", event.moment().duration_since(zero).as_secs_f64());
        let warnings = events.iter().filter(|event| event.is_warning()).count();
        html! {
            section {
                h2 { "Events of the cluster" }
                details open[self.load.is_none() && !self.is_good()] {
                    summary { (events.len()) " events, " (warnings) " of them warnings" }
                    @if left_out > 0 { p.facts { "the last " (MOST) " are shown" } }
                    div.scrolls tabindex="0" role="region" aria-label="Events of the cluster" {
                        table.events {
                            (head(&["at", "what", "of", "message"]))
                            tbody {
                                @for event in events.iter().skip(left_out) {
                                    tr.warning[event.is_warning()] {
                                        td { (at(event)) }
                                        td { (reason(event)) }
                                        td { (clip(&event.about)) }
                                        td { (clip(&event.message)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn reason(event: &EventSeen) -> String {
    let warning = if event.is_warning() { "⚠ " } else { "" };
    let count = event.object.count.filter(|count| *count > 1);
    let count = count.map(|count| format!(" × {count}")).unwrap_or_default();
    format!("{warning}{}{count}", clip(&event.reason))
}
