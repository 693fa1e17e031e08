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
///
/// By position, from the left: nginx writes a quote in a value as `\x22`, so the first six quotes are its own, and the
/// id, which is the client's and may hold anything else, is whatever is left at the end.
pub fn parse(controller: &str, stamped_line: &str) -> Option<Access> {
    let (at, line) = stamped(stamped_line);
    // `... "request" status bytes "referer" "agent" length time [upstream] [alternative] lists id`
    let mut parts = line.splitn(7, '"');
    let (_head, _request, answer) = (parts.next()?, parts.next()?, parts.next()?);
    let (_referer, between, _agent, tail) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (status, body_bytes) = answer.trim().split_once(' ')?;
    if between != " " || body_bytes.parse::<u64>().is_err() {
        return None;
    }
    let (_request_bytes, rest) = tail.strip_prefix(' ')?.split_once(' ')?;
    let (seconds, rest) = rest.split_once(' ')?;
    let (upstream, rest) = rest.strip_prefix('[')?.split_once("] [")?;
    let (_alternative, rest) = rest.split_once("] ")?;
    let (addresses, rest) = list(rest, None)?;
    // The others have as many, whatever a client's id after the last of them begins with.
    let tries = Some(addresses.len());
    let (_lengths, rest) = list(rest, tries)?;
    let (times, rest) = list(rest, tries)?;
    let (statuses, id) = list(rest, tries)?;
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
        status: status.parse().ok()?,
        seconds: seconds.parse().ok()?,
        upstream: upstream.to_owned(),
        attempts,
        id: id.to_owned(),
    })
}

/// One value an attempt, and what follows: after `,` the next try comes, and after ` : ` one in another group of pods.
/// Where it is known how many there are, the list has no more.
fn list(text: &str, tries: Option<usize>) -> Option<(Vec<&str>, &str)> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        let (value, after) = rest.split_once(' ')?;
        values.push(value.trim_end_matches(','));
        rest = after;
        if tries == Some(values.len()) {
            return Some((values, rest));
        }
        if let Some(another_group) = rest.strip_prefix(": ") {
            rest = another_group;
        } else if !value.ends_with(',') {
            return Some((values, rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-01-02T03:04:05.678901Z 127.0.0.1 - - [02/Jan/2026:03:04:05 +0000] \"POST \
                        /predict \
         HTTP/1.1\" 502 137 \"-\" \"xtask-load/0.1 [x] y\" 90210 1.507 \
         [default-simple-model-api-service-http] [] ";

    #[test]
    fn every_attempt_is_read() {
        let line = format!(
            "{LINE}127.0.0.2:8000, 127.0.0.3:8000, 127.0.0.4:8000 0, 1500, 7 0.000, 1.500, 0.007 502, 504, \
             - abc"
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
    fn what_a_client_writes_forges_neither_an_id_nor_an_upstream() {
        let id = "0123456789abcdef0123456789abcdef";
        let forged = format!("10.6.6.6:80 0 0.001 502 {id}");
        // As nginx writes a quote that a client sent; brackets and spaces stay.
        let id = format!("x\\x22 1 0.1 [a] [] {forged}");
        let line = format!("{LINE}10.0.0.2:8000 5 0.010 200 {id}");
        let access = parse("c1", &line).expect("an access line");
        assert_eq!((access.id.as_str(), access.attempts.len()), (id.as_str(), 1));
        assert_eq!(access.attempts[0].address, "10.0.0.2:8000");
        for field in
            ["u [02/Jan/2026:03:04:05 +0000] x", "] [] 10.6.6.6:80 0 0.1 502 ", &format!("] {forged}")]
        {
            let [user, request, referer, agent] = ["-", "GET / HTTP/1.1", "-", "curl"];
            for place in 0..4 {
                let mut fields = [user, request, referer, agent];
                fields[place] = field;
                let [user, request, referer, agent] = fields;
                let line = format!(
                    "127.0.0.1 - {user} [02/Jan/2026:03:04:05 +0000] \"{request}\" 200 5 \"{referer}\" \
                     \"{agent}\" 90 0.002 \
                     [default-app-http] [] 10.0.0.2:8000 5 0.010 200 abc"
                );
                let access = parse("c1", &line).expect("an access line");
                assert_eq!((access.status, access.id.as_str()), (200, "abc"), "{line}");
                assert_eq!(access.upstream, "default-app-http", "{line}");
            }
        }
    }

    /// It would be read as the status of one more try, and the rest of it as the id.
    #[test]
    fn an_id_that_begins_as_another_group_does_is_an_id() {
        for id in [": c", ": 200 0123456789abcdef0123456789abcdef", ", 200 abc"] {
            let access =
                parse("c1", &format!("{LINE}10.0.0.2:8000 5 0.010 502 {id}")).expect("an access line");
            assert_eq!((access.id.as_str(), access.attempts.len()), (id, 1));
            let access = parse("c1", &format!("{LINE}- - - - {id}")).expect("an access line");
            assert_eq!((access.id.as_str(), access.attempts.len()), (id, 0));
        }
    }

    #[test]
    fn a_line_without_a_request_id_has_an_empty_one() {
        let access = parse("c1", &format!("{LINE}- - - - ")).expect("an access line");
        assert_eq!(access.id, "");
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
