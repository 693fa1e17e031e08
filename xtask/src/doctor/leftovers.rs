//! What earlier runs left: sandboxes that were killed or are of another build, contexts that lead nowhere.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kube::config::Kubeconfig;

use super::Finding;
use crate::clusters::sandbox::program::{Program, State};
use crate::clusters::{Choice, Cluster, Kind};
use crate::commands::Commands;
use crate::cx::Cx;
use crate::manifests::Manifests;
use crate::temporary::App;

/// A server on this machine answers, or refuses, much sooner.
const CONNECT: Duration = Duration::from_millis(500);

/// The sandboxes of all profiles.
pub(super) async fn sandboxes(cx: &Cx) -> Vec<Finding> {
    let mut homes: Vec<_> = std::fs::read_dir(cx.home().join("sandbox"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    homes.sort();
    let mut findings = Vec::new();
    for home in homes {
        let state = state(cx, &home).await;
        findings.extend(sandbox_of(&home, state));
    }
    findings
}

async fn state(cx: &Cx, home: &Path) -> Result<State> {
    match Program::of(cx, home).await? {
        Some(program) => program.state(cx, home).await,
        None => Ok(State::Absent),
    }
}

fn sandbox_of(home: &Path, state: Result<State>) -> Option<Finding> {
    let profile = home.file_name()?.to_string_lossy();
    let commands = Commands::sandbox(&profile);
    let (up, down) = (commands.xtask("up"), commands.xtask("down"));
    match state {
        Ok(State::Absent) => None,
        Ok(State::Starting) => Some(Finding::ok("sandbox", format!("`{profile}` is starting or stopping"))),
        Ok(State::Running(info)) if info.current => Some(Finding::ok(
            "sandbox",
            format!("`{profile}` is running (pid {}), started by this build", info.pid),
        )),
        Ok(State::Running(info)) => Some(Finding::warning(
            "sandbox",
            format!("`{profile}` is running (pid {}), started by another build of this tool", info.pid),
            format!("`{down}`, then `{up}`, starts one of this build"),
        )),
        Ok(State::Stale) => Some(Finding::warning(
            "sandbox",
            format!("`{profile}` was killed and left its state behind"),
            format!("the next `{up}` cleans it up, and so does `{down}`"),
        )),
        Err(error) => Some(Finding::warning(
            "sandbox",
            format!("`{profile}` can't be inspected: {}", crate::failure::paragraph(&error)),
            format!("look at {}", home.display()),
        )),
    }
}

/// What a load run has changed in the running app and has not put back.
pub(super) async fn change(cx: &Cx, running: Option<&Cluster>, manifests: &Manifests) -> Option<Finding> {
    let app = App::of(cx, running?, manifests);
    let mark = app.mark().await.ok().flatten()?;
    let fix = format!("`{}` puts it back, if that run is over", cx.commands.xtask("up"));
    Some(Finding::warning("app", app.sentence(&mark), fix))
}

/// The profile's context in the kubeconfig of our own and in the user's.
pub(super) fn contexts(cx: &Cx, choice: &Choice, runs: bool) -> Vec<Finding> {
    let profile = &cx.shared.profile;
    let mut findings = Vec::new();
    if matches!(choice.kind, Kind::Minikube(_)) && !runs {
        let own = cx.home().join("minikube").join(profile).join("kubeconfig");
        findings.extend(dead_end(&own, profile).map(|what| {
            let up = cx.commands.xtask("up");
            Finding::warning("context", what, format!("nothing to do: `{up}` writes it again"))
        }));
    }
    if let Some(home) = std::env::var_os("HOME") {
        let ambient = Path::new(&home).join(".kube/config");
        findings.extend(dead_end(&ambient, profile).map(|what| {
            let fix = format!(
                "this tool never uses it; for your own kubectl: `minikube --profile {profile} \
                 update-context`, or `kubectl config delete-context {profile}`"
            );
            Finding::warning("context", what, fix)
        }));
    }
    findings
}

/// That a file's context of that name points at an address where nothing listens; none if all is well or it has none.
fn dead_end(file: &Path, context: &str) -> Option<String> {
    let config = Kubeconfig::read_from(file).ok()?;
    let named = config.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    let cluster = config.clusters.iter().find(|cluster| cluster.name == named.cluster)?.cluster.as_ref()?;
    let server = cluster.server.as_ref()?;
    let url: http::Uri = server.parse().ok()?;
    let address = (url.host()?.trim_matches(['[', ']']), url.port_u16().unwrap_or(443));
    let reached = address
        .to_socket_addrs()
        .into_iter()
        .flatten()
        .any(|address| TcpStream::connect_timeout(&address, CONNECT).is_ok());
    (!reached).then(|| {
        format!("the context `{context}` of {} points at {server}, where nothing answers", file.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(dir: &Path, port: u16) -> std::path::PathBuf {
        let file = dir.join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \
             'https://127.0.0.1:{port}'}}}}]\n\
             contexts: [{{name: mini, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        );
        std::fs::write(&file, text).expect("writing");
        file
    }

    #[test]
    fn a_context_is_a_dead_end_when_nothing_listens() {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let file = kubeconfig(dir.path(), port);
        assert_eq!(dead_end(&file, "mini"), None, "a server is there");
        drop(listener);
        let what = dead_end(&file, "mini").expect("a dead end");
        assert!(
            what.contains(&format!("points at https://127.0.0.1:{port}, where nothing answers")),
            "{what}"
        );
        assert_eq!(dead_end(&file, "another"), None, "not our business");
        assert_eq!(dead_end(&dir.path().join("none"), "mini"), None);
    }

    #[test]
    fn a_folder_without_a_sandbox_is_no_finding() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(sandbox_of(dir.path(), Ok(State::Absent)), None);
        let finding = sandbox_of(dir.path(), Ok(State::Stale)).expect("a finding");
        assert!(finding.what.ends_with("was killed and left its state behind"), "{}", finding.what);
    }
}
