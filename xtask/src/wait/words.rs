//! Workloads as kubectl's users write them.

use anyhow::{Result, anyhow};

use crate::failure::{Attach as _, Exit};
use crate::gates::kind::Kind;

/// What kubectl knows and nothing is rolled out of.
const OTHERS: [&str; 22] = [
    "pod",
    "pods",
    "po",
    "service",
    "services",
    "svc",
    "replicaset",
    "replicasets",
    "rs",
    "cronjob",
    "cronjobs",
    "cj",
    "configmap",
    "configmaps",
    "cm",
    "ingress",
    "ingresses",
    "ing",
    "namespace",
    "namespaces",
    "node",
    "nodes",
];

/// Reads `KIND/NAME…` or `KIND NAME…`, in kubectl's words for the kinds.
///
/// # Errors
/// Exit code 2, as kubectl words it.
pub(super) fn read(words: &[String]) -> Result<Vec<(Kind, String)>> {
    let mut found: Vec<(Kind, String)> = Vec::new();
    let mut add = |kind, name: &str| {
        let one = (kind, name.to_owned());
        // Twice the same is once.
        if !found.contains(&one) {
            found.push(one);
        }
    };
    match words {
        [first, rest @ ..] if !first.contains('/') => {
            let kinds = first.split(',').map(kind).collect::<Result<Vec<_>>>()?;
            if rest.is_empty() {
                return Err(usage(
                    "resource(s) were provided, but no name was specified",
                    &format!("{first}/NAME"),
                ));
            }
            for name in rest {
                if name.contains('/') {
                    let text = format!(
                        "there is no need to specify a resource type as a separate argument when passing \
                         arguments in resource/name form (e.g. '{name}')"
                    );
                    return Err(usage(&text, &format!("{first}/NAME")));
                }
                kinds.iter().for_each(|kind| add(*kind, name));
            }
        }
        words => {
            for word in words {
                let Some((first, name)) =
                    word.split_once('/').filter(|(_, name)| !name.is_empty() && !name.contains('/'))
                else {
                    let text = format!(
                        "arguments in resource/name form must have a single resource and name, not `{word}`"
                    );
                    return Err(usage(&text, "deployment/NAME"));
                };
                add(kind(first)?, name);
            }
        }
    }
    Ok(found)
}

fn usage(text: &str, example: &str) -> anyhow::Error {
    anyhow!("{text}").hint(format!("write `{example}`")).exit(Exit::Usage)
}

/// `deployment`, `deployments`, `deploy`, `deployments.apps`, `deployments.v1.apps`, in any case.
fn kind(word: &str) -> Result<Kind> {
    let lower = word.to_ascii_lowercase();
    let (name, group) = lower.split_once('.').unwrap_or((&lower, ""));
    let found = Kind::ALL.into_iter().find(|kind| {
        let short = match kind {
            Kind::Deployment => "deploy",
            Kind::StatefulSet => "sts",
            Kind::DaemonSet => "ds",
            Kind::Job => "job",
        };
        name == kind.word() || name == kind.plural() || name == short
    });
    let is_group =
        |kind: Kind| group.is_empty() || group == kind.group() || group == format!("v1.{}", kind.group());
    if let Some(kind) = found.filter(|kind| is_group(*kind)) {
        return Ok(kind);
    }
    let text = if OTHERS.contains(&name) {
        format!("nothing is rolled out of `{word}`")
    } else {
        format!("the server doesn't have a resource type \"{word}\" that is rolled out")
    };
    let all = Kind::ALL.map(Kind::word).join(", ");
    Err(anyhow!("{text}").hint(format!("can be waited for: {all}")).exit(Exit::Usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Hint, attached, exit_of, paragraph};

    fn read(words: &str) -> Result<Vec<(Kind, String)>> {
        super::read(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_workload_is_written_as_for_kubectl() {
        let web = (Kind::Deployment, "web".to_owned());
        for words in [
            "deployment/web",
            "deploy/web",
            "Deployments/web",
            "deployments.apps/web",
            "deployment.v1.apps/web",
            "deploy web",
        ] {
            assert_eq!(read(words).expect(words), std::slice::from_ref(&web), "{words}");
        }
        let several = read("sts/db ds/agent job/seed deploy/web deploy/web").expect("several");
        let titles: Vec<_> = several.iter().map(|(kind, name)| format!("{}/{name}", kind.word())).collect();
        assert_eq!(titles, ["statefulset/db", "daemonset/agent", "job/seed", "deployment/web"]);
        assert_eq!(read("deploy,sts web db").expect("a list of kinds").len(), 4);
    }

    #[test]
    fn what_can_not_be_meant_is_refused_as_kubectl_refuses_it() {
        let mut text = String::new();
        for words in [
            "deployment",
            "deployment/",
            "/web",
            "deploy/a/b",
            "web",
            "pod/web",
            "deployments.extensions/web",
            "deploy sts/db",
            "deploy/web db",
        ] {
            let error = read(words).expect_err(words);
            assert_eq!(exit_of(&error), Exit::Usage);
            let hint = attached::<Hint>(&error).map(|hint| format!("{:?}", hint.0)).unwrap_or_default();
            text += &format!("{words}: {} [{hint}]\n", paragraph(&error));
        }
        insta::assert_snapshot!(text, @r#"
        deployment: resource(s) were provided, but no name was specified [Words("write `deployment/NAME`")]
        deployment/: arguments in resource/name form must have a single resource and name, not `deployment/` [Words("write `deployment/NAME`")]
        /web: the server doesn't have a resource type "" that is rolled out [Words("can be waited for: deployment, statefulset, daemonset, job")]
        deploy/a/b: arguments in resource/name form must have a single resource and name, not `deploy/a/b` [Words("write `deployment/NAME`")]
        web: the server doesn't have a resource type "web" that is rolled out [Words("can be waited for: deployment, statefulset, daemonset, job")]
        pod/web: nothing is rolled out of `pod` [Words("can be waited for: deployment, statefulset, daemonset, job")]
        deployments.extensions/web: the server doesn't have a resource type "deployments.extensions" that is rolled out [Words("can be waited for: deployment, statefulset, daemonset, job")]
        deploy sts/db: there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'sts/db') [Words("write `deploy/NAME`")]
        deploy/web db: arguments in resource/name form must have a single resource and name, not `db` [Words("write `deployment/NAME`")]
        "#);
    }
}
