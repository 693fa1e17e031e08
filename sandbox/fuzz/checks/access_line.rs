//! What every line must hold that is read as one of the access log; the fuzzer and the tool's tests both call it, each
//! with the parser beside it.

use super::access;

/// Reading ends, and what a client has a say in can't change what the proxy says.
pub(crate) fn access_line(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let _ = access::parse("controller", &text);
    // Four values of a client's, as nginx escapes them.
    let mut values = text.splitn(4, '\n').map(escaped);
    let mut next = || values.next().unwrap_or_default();
    let (request, referer, agent, id) = (next(), next(), next(), next());
    let line = format!(
        "2026-01-02T03:04:05.678901Z 127.0.0.1 - - [02/Jan/2026:03:04:05 +0000] \"{request}\" 502 137 \
         \"{referer}\" \"{agent}\" \
         90 1.507 [default-app-http] [] 10.0.0.2:8000, 10.0.0.3:8000 0, 7 0.000, 1.500 502, 504 {id}"
    );
    let access = access::parse("controller", &line).expect("a line of the proxy's");
    assert_eq!((access.status, access.id.as_str()), (502, id.as_str()), "{line}");
    assert_eq!(access.upstream, "default-app-http", "{line}");
    let tried: Vec<_> =
        access.attempts.iter().map(|attempt| (attempt.address.as_str(), attempt.status)).collect();
    assert_eq!(tried, [("10.0.0.2:8000", Some(502)), ("10.0.0.3:8000", Some(504))], "{line}");
}

fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' | '\0'..='\x1f' | '\x7f'.. => {
            c.to_string().bytes().map(|byte| format!("\\x{byte:02X}")).collect()
        }
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
