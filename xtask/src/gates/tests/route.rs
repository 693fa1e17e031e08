//! The route gate: what each answer means, and that only good ones in a row open it.

use super::expect;
use crate::gates::Verdict;
use crate::gates::route::{Answer, Streak, explain, judge};

fn http(status: u16, kind: &str, body: &str) -> Answer {
    Answer::Http { status, is_json: kind == "json", body: body.to_owned() }
}

#[test]
fn five_good_answers_in_a_row_open() {
    let mut streak = Streak::default();
    for n in 1..5 {
        streak.take(&http(200, "json", "{}"));
        expect(&judge(&streak, "web.local"), &format!("closed: {n} of 5 good answers"));
    }
    streak.take(&http(503, "html", "<h1>503 Service Temporarily Unavailable</h1>"));
    expect(&judge(&streak, "web.local"), "closed: 503 from the proxy: it has no endpoint for the service");
    for _ in 0..4 {
        streak.take(&http(200, "json", "{}"));
    }
    assert!(matches!(judge(&streak, "web.local"), Verdict::Closed(_)));
    streak.take(&http(200, "json", "{}"));
    expect(&judge(&streak, "web.local"), "open: 5 good answers in a row for web.local");
}

#[test]
fn every_other_answer_is_explained() {
    for (answer, wanted) in [
        (
            http(404, "html", "<center>nginx</center>"),
            "404 from the proxy: the route is not synced yet, or no Ingress has this host",
        ),
        (http(404, "json", "{}"), "404 from a service behind the entry: another app owns this route"),
        (http(503, "html", ""), "503 from the proxy: it has no endpoint for the service"),
        (
            http(503, "json", "{\"success\":false}"),
            "503 from the app itself: it is not ready, or draining ({\"success\":false})",
        ),
        (http(502, "html", ""), "502: the proxy has an endpoint that does not accept the connection"),
        (http(504, "html", ""), "504: the pod behind the proxy does not answer in time"),
        (
            http(308, "html", ""),
            "308: the entry redirects, perhaps to HTTPS (nginx.ingress.kubernetes.io/ssl-redirect)",
        ),
        (http(500, "html", "oh\n no"), "500: oh no"),
        (http(204, "html", ""), "204: "),
        (
            Answer::Refused("Connection refused (os error 111)".into()),
            "nothing listens at the entry (Connection refused (os error 111))",
        ),
        (Answer::Timeout, "no answer within 3 s"),
        (Answer::Broken("connection reset".into()), "the connection broke (connection reset)"),
    ] {
        assert_eq!(explain(&answer).as_deref(), Some(wanted));
    }
    assert_eq!(explain(&http(200, "html", "")), None);
}
