//! The program that a kubeconfig's user gets its credentials from, such as a cloud's or an identity provider's.

use anyhow::anyhow;
use kube::client::AuthError;
use kube::config::Kubeconfig;

use crate::commands::quoted;
use crate::failure::Attach as _;
use crate::proc;

/// Why it failed; nothing where the error is of something else.
pub(super) fn failure(error: &anyhow::Error, config: &Kubeconfig) -> Option<anyhow::Error> {
    let exec = config.auth_infos.first()?.auth_info.as_ref()?.exec.as_ref()?;
    let command = exec.command.as_deref()?;
    let auth = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(kube::Error::Auth(auth)) => Some(auth),
        _ => None,
    })?;
    let words = exec.args.iter().flatten().map(String::as_str);
    let line: Vec<String> = std::iter::once(command).chain(words).map(quoted).collect();
    let by_hand = format!("`{}` should print a credential", line.join(" "));
    let (why, hint) = match auth {
        AuthError::AuthExecStart(error) => (error.to_string(), exec.install_hint.clone()),
        // What it printed may be a credential; what it complained of is not.
        AuthError::AuthExecRun { out, .. } => {
            let complaints = String::from_utf8_lossy(&out.stderr);
            let last = complaints.lines().map(str::trim).rfind(|line| !line.is_empty());
            let last = last.map(|line| format!(": {line}")).unwrap_or_default();
            (format!("it {}{last}", proc::ending(out.status)), None)
        }
        other => (other.to_string(), None),
    };
    let doing = format!("running `{command}`, which the kubeconfig names for the credentials");
    Some(anyhow!("{why}").context(doing).hint(hint.unwrap_or(by_hand)))
}
