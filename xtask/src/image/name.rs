//! Image names, short and whole.

/// The whole name of what people write short: `app:1` is `docker.io/library/app:1` to every runtime.
pub fn canonical(reference: &str) -> String {
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    match reference.split_once('/') {
        Some((first, _)) if is_host(first) => reference.to_owned(),
        Some(_) => format!("docker.io/{reference}"),
        None => format!("docker.io/library/{reference}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_dockers_hub() {
        for (short, whole) in [
            ("app:1", "docker.io/library/app:1"),
            ("team/app:1", "docker.io/team/app:1"),
            ("localhost/app:1", "localhost/app:1"),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000/app:1"),
            ("ghcr.io/team/app:1", "ghcr.io/team/app:1"),
        ] {
            assert_eq!(canonical(short), whole);
        }
    }
}
