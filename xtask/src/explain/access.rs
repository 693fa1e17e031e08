//! A line of the access log, in the format that ingress-nginx calls `upstreaminfo`.

use jiff::Timestamp;

/// One request, as the proxy saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// When the line was written, which is when the request had ended, by the node's clock.
    pub at: Option<Timestamp>,
    /// The controller's pod.
    pub controller: String,
    /// The line itself.
    pub line: String,
    /// What the client was answered.
    pub status: u16,
    /// From the first byte of the request to the last of the answer, in seconds.
    pub seconds: f64,
    /// `namespace-service-port`, or the default backend.
    pub upstream: String,
    /// Each try at a pod, in order; none where there was nowhere to go.
    pub attempts: Vec<Attempt>,
    /// The request's id.
    pub id: String,
}

/// One try at one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// `address:port`.
    pub address: String,
    /// How long it took, in seconds; the proxy does not always say.
    pub seconds: Option<f64>,
    /// The pod's status, or the one that the proxy gives the failure.
    pub status: Option<u16>,
}

/// Splits the node's timestamp from a line.
pub fn stamped(line: &str) -> (Option<Timestamp>, &str) {
    match line.split_once(' ') {
        Some((stamp, rest)) => match stamp.parse() {
            Ok(at) => (Some(at), rest),
            Err(_) => (None, line),
        },
        None => (None, line),
    }
}

/// Reads a line; nothing where it is of another kind, such as the controller's own messages.
pub fn parse(controller: &str, stamped_line: &str) -> Option<Access> {
    let (at, line) = stamped(stamped_line);
    // `... "request" status bytes "referer" "agent" length time [upstream] [alternative] lists id`
    let (head, lists) = line.rsplit_once("] ")?;
    let mut quoted = head.split('"');
    let status = quoted.nth(2)?.split_whitespace().next()?.parse().ok()?;
    let tail = quoted.next_back()?;
    let mut words = tail.split_whitespace();
    let _request_bytes = words.next()?;
    let seconds = words.next()?.parse().ok()?;
    let upstream = words.next()?.trim_matches(['[', ']']).to_owned();

    let mut columns: Vec<Vec<&str>> = vec![Vec::new()];
    // After `,` the next try follows, and after ` : ` one in another group of pods.
    let mut words = lists.split(' ').peekable();
    while let Some(word) = words.next() {
        let value = word.trim_end_matches(',');
        if value != ":" {
            columns.last_mut()?.push(value);
        }
        let goes_on = word.ends_with(',') || value == ":" || words.peek() == Some(&":");
        if !goes_on {
            columns.push(Vec::new());
        }
    }
    columns.retain(|column| !column.is_empty());
    let [addresses, _lengths, times, statuses, ids] = columns.as_slice() else { return None };
    let attempts = addresses
        .iter()
        .enumerate()
        .filter(|(_, address)| **address != "-")
        .map(|(index, address)| Attempt {
            address: (*address).to_owned(),
            seconds: times.get(index).and_then(|time| time.parse().ok()),
            status: statuses.get(index).and_then(|status| status.parse().ok()),
        })
        .collect();
    Some(Access {
        at,
        controller: controller.to_owned(),
        line: line.to_owned(),
        status,
        seconds,
        upstream,
        attempts,
        id: (*ids.first()?).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-01-02T03:04:05.678901Z 127.0.0.1 - - [02/Jan/2026:03:04:05 +0000] \"POST /predict \
         HTTP/1.1\" 502 137 \"-\" \"xtask-load/0.1 [x] y\" 90210 1.507 [default-simple-model-api-service-http] [] ";

    #[test]
    fn every_attempt_is_read() {
        let line = format!(
            "{LINE}127.0.0.2:8000, 127.0.0.3:8000, 127.0.0.4:8000 0, 1500, 7 0.000, 1.500, 0.007 502, 504, - abc"
        );
        let access = parse("c1", &line).expect("an access line");
        assert_eq!((access.status, access.seconds, access.id.as_str()), (502, 1.507, "abc"));
        assert_eq!(access.upstream, "default-simple-model-api-service-http");
        let statuses: Vec<_> = access.attempts.iter().map(|a| (a.address.as_str(), a.status)).collect();
        assert_eq!(
            statuses,
            [("127.0.0.2:8000", Some(502)), ("127.0.0.3:8000", Some(504)), ("127.0.0.4:8000", None)]
        );
        assert_eq!(access.attempts[1].seconds, Some(1.5));
        assert_eq!(access.at, Some("2026-01-02T03:04:05.678901Z".parse().unwrap()));
        assert!(access.line.starts_with("127.0.0.1 - - ["));
    }

    #[test]
    fn another_group_of_pods_is_set_off_by_a_colon() {
        let line = format!(
            "{LINE}10.0.0.2:8000, 10.0.0.3:8000 : 10.0.0.4:8000 0, 0 : 5 0.1, 0.1 : 0.2 502, 502 : 200 abc"
        );
        assert_eq!(parse("c1", &line).expect("an access line").attempts.len(), 3);
    }

    #[test]
    fn nowhere_to_go_is_no_attempt() {
        let access = parse("c1", &format!("{LINE}- - - - abc")).expect("an access line");
        assert_eq!(access.attempts, []);
    }

    #[test]
    fn other_lines_are_not_taken_for_requests() {
        for line in
            ["", "I0102 03:04:05 controller.go:1] routes synced", "] \" \" \" [a] [] - - - - x", "a] b"]
        {
            assert_eq!(parse("c1", line), None, "{line}");
        }
    }
}
