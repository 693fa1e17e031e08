//! The command lines that messages show. Each is ready to be pasted: it names the cluster, profile, namespace and port
//! of the run that shows it.

use std::path::PathBuf;

use crate::options::{ClusterChoice, DEFAULT_NAMESPACE, DEFAULT_PORT, DEFAULT_PROFILE, Shared};

/// A word as a shell has to be given it.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+{}".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Writes command lines for the cluster of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// The options that lead to the cluster, each behind a space.
    cluster: String,
    /// Those that say how the app lives in it.
    app: String,
}

impl Commands {
    /// For the cluster that these options mean. What a bare command would do anyway is left out.
    #[must_use]
    pub fn new(shared: &Shared) -> Commands {
        let mut commands = Commands::default();
        let profile = shared.profile.as_str();
        commands.cluster.push_str(match shared.cluster {
            ClusterChoice::Auto => "",
            ClusterChoice::Minikube => " --cluster minikube",
            ClusterChoice::Sandbox => " --cluster sandbox",
            // Named as it is.
            ClusterChoice::Context => "",
        });
        let words = [("context", shared.context.clone()), ("kubeconfig", path(shared.kubeconfig.as_ref()))];
        let given =
            |(option, value): (&str, Option<String>)| Some(format!(" --{option} {}", quoted(&value?)));
        commands.cluster.extend(words.into_iter().filter_map(given));
        if let Some(registry) = &shared.registry {
            commands.app.push_str(&format!(" --registry {registry}"));
        }
        if let Some(entry) = &shared.entry {
            commands.app.push_str(&format!(" --entry {}", quoted(entry)));
        }
        if shared.context.is_none() && profile != DEFAULT_PROFILE {
            commands.cluster.push_str(&format!(" --profile {profile}"));
        }
        if shared.namespace != DEFAULT_NAMESPACE {
            commands.app.push_str(&format!(" --namespace {}", shared.namespace));
        }
        if shared.port != DEFAULT_PORT {
            commands.app.push_str(&format!(" --port {}", shared.port));
        }
        commands
    }

    /// For the sandbox of a profile, whichever cluster this run is about.
    #[must_use]
    pub fn sandbox(profile: &str) -> Commands {
        Commands { cluster: format!(" --cluster sandbox --profile {profile}"), app: String::new() }
    }

    /// `cargo xtask …` for the same cluster.
    #[must_use]
    pub fn xtask(&self, words: &str) -> String {
        format!("cargo xtask {words}{}{}", self.cluster, self.app)
    }

    /// kubectl for the same cluster; `arguments` name the namespace.
    #[must_use]
    pub fn kubectl(&self, arguments: &str) -> String {
        format!("kubectl --kubeconfig \"$(cargo xtask kubeconfig{})\" {arguments}", self.cluster)
    }

    /// Advice, written out for the same cluster.
    #[must_use]
    pub fn write_out(&self, advice: &Advice) -> String {
        let (command, what_for) = match advice {
            Advice::Words(words) => return words.clone(),
            Advice::Kubectl(arguments, what_for) => (self.kubectl(arguments), what_for),
            Advice::Xtask(words, what_for) => (self.xtask(words), what_for),
        };
        if what_for.is_empty() { command } else { format!("`{command}` {what_for}") }
    }
}

fn path(path: Option<&PathBuf>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

/// What to try next, from something that knows no run; [`Commands::write_out`] makes a line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// In words alone.
    Words(String),
    /// Arguments of kubectl, and what the command is good for; empty where that is plain.
    Kubectl(String, &'static str),
    /// A command of this tool, and what it is good for.
    Xtask(&'static str, &'static str),
}

impl<W: Into<String>> From<W> for Advice {
    fn from(words: W) -> Advice {
        Advice::Words(words.into())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn commands(args: &[&str]) -> Commands {
        let cli = Cli::parse_from([&["xtask", "status"], args].concat());
        Commands::new(&cli.shared)
    }

    #[test]
    fn a_command_line_leads_to_the_cluster_of_its_run() {
        let args = [
            "--cluster",
            "sandbox",
            "--profile",
            "lab",
            "--namespace",
            "team",
            "--port",
            "9000",
            "--dry-run",
        ];
        let lab = commands(&args);
        assert_eq!(
            lab.xtask("logs --tail 50"),
            "cargo xtask logs --tail 50 --cluster sandbox --profile lab --namespace team --port 9000"
        );
        assert_eq!(
            lab.kubectl("-n team get pods"),
            r#"kubectl --kubeconfig "$(cargo xtask kubeconfig --cluster sandbox --profile lab)" -n team get pods"#
        );
    }

    #[test]
    fn what_is_so_anyway_is_left_out() {
        let args = ["--cluster", "auto", "--profile", "minikube", "--namespace", "default", "--port", "8080"];
        let bare = commands(&args);
        assert_eq!(bare, Commands::default());
        assert_eq!(bare.xtask("up"), "cargo xtask up");
        assert_eq!(bare.kubectl("get nodes"), "kubectl --kubeconfig \"$(cargo xtask kubeconfig)\" get nodes");
    }

    #[test]
    fn advice_reads_as_a_line() {
        let bare = Commands::default();
        assert_eq!(bare.write_out(&"raise the quota".into()), "raise the quota");
        assert_eq!(
            bare.write_out(&Advice::Xtask("redeploy", "builds the image again")),
            "`cargo xtask redeploy` builds the image again"
        );
    }

    /// A command that is written by hand forgets the cluster, the profile or the port sooner or later.
    #[test]
    fn no_message_writes_a_command_for_a_cluster_by_hand() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![source.clone()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("listing") {
                let path = entry.expect("listing").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let is_test = path.components().any(|part| part.as_os_str() == "tests");
                if is_test || path.extension().is_none_or(|kind| kind != "rs") || path.ends_with(file!()) {
                    continue;
                }
                let text = std::fs::read_to_string(&path).expect("reading");
                let shown = |line: &&str| !line.trim_start().starts_with("//") && is_by_hand(line);
                found.extend(text.lines().filter(shown).map(|line| format!("{}: {line}", path.display())));
            }
        }
        assert!(is_by_hand("start it with `cargo xtask up`") && is_by_hand("`kubectl get pods` shows it"));
        assert_eq!(found, Vec::<String>::new());
    }

    /// The commands that need no cluster are free.
    fn is_by_hand(line: &str) -> bool {
        let free = ["weights", "explain", "completions", "test", "doctor"];
        let of_ours = |rest: &str| !free.iter().any(|command| rest.starts_with(command));
        line.split("`cargo xtask ").skip(1).any(of_ours)
            || line.split("`kubectl ").skip(1).any(|rest| !rest.starts_with("config "))
    }
}
