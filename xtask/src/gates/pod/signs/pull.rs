//! An image that a node does not get: which of the runtime's words no second try will change, and what helps.

use crate::kubernetes::one_line;

/// The words of registries and runtimes, and what helps against each; the first that fits counts.
const CURES: [(&[&str], &str); 4] = [
    // Its words end with "not found".
    (
        &["no match for platform"],
        "the image is not for the node's processor: build it for that too, or choose the pods' nodes with \
         `nodeSelector: {kubernetes.io/arch: …}`",
    ),
    // Who may not see a repository is told that it does not exist.
    (
        &[
            "unauthorized",
            "authorization failed",
            "authentication required",
            "no basic auth",
            "denied",
            "forbidden",
        ],
        "fix the name, or let the nodes pull it: a Secret of type kubernetes.io/dockerconfigjson, named in \
         `imagePullSecrets` of the pod's template",
    ),
    (
        &["not found", "manifest unknown", "does not exist", "no such image"],
        "the registry has no such image: fix the name or tag, or push it",
    ),
    (
        &["x509:", "tls: ", "server gave http response to https client"],
        "give the nodes' container runtime the registry's certificate authority, or tell it that the \
         registry speaks plain HTTP (containerd: `certs.d/HOST/hosts.toml`)",
    ),
];

/// What helps where a try again will not; nothing for what may pass, such as a registry that does not answer.
pub(super) fn cure(message: &str) -> Option<&'static str> {
    let message = message.to_ascii_lowercase();
    let fits = |words: &&[&str]| words.iter().any(|words| message.contains(words));
    CURES.iter().find(|(words, _)| fits(words)).map(|(_, cure)| *cure)
}

/// What went wrong, without the layers of a runtime's message that each name the image anew: a digest is long.
pub(super) fn cause(image: &str, message: &str) -> String {
    let cause = match message.rsplit_once("\": ") {
        Some((_, cause)) => {
            cause.strip_prefix(image).map_or(cause, |rest| rest.trim_start_matches([':', ' ']))
        }
        None if message.is_empty() => return image.to_owned(),
        None => return one_line(message),
    };
    one_line(&format!("{image}: {cause}"))
}
