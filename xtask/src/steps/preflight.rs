//! Everything that can be known to be wrong before anything is changed, all at once.

use std::fmt::Write as _;

use anyhow::{Result, anyhow};

use crate::clusters::{Choice, Problem};
use crate::failure::{Attach as _, Exit, Hint, attached, paragraph};
use crate::manifests::{self, Manifests};
use crate::pipeline::{Branch, Done, Outcome, step};
use crate::plan::Planned;

/// Its name.
const NAME: &str = "preflight";

/// What it would do.
pub fn plan() -> Planned {
    let does = "read kubernetes/; look for tools, the container engine, ports";
    Planned::step(NAME, vec![does.to_owned()])
}

/// What the later steps take from here.
pub struct Checked {
    /// The objects to apply.
    pub manifests: Manifests,
}

/// Reads the manifests and asks the kind of cluster for its problems.
///
/// # Errors
/// Exit code 10, with every problem and its fix.
pub async fn run(branch: &mut Branch<'_>, choice: &Choice) -> Result<Done<Checked>> {
    let cx = branch.cx;
    step(branch, NAME, async |step| {
        let manifests = manifests::read(&cx.root.join("kubernetes"), &cx.shared.namespace);
        let mut problems = cx.unless_stopped(choice.kind.problems(cx)).await?;
        let manifests = match manifests {
            Ok(manifests) => Some(manifests),
            Err(error) => {
                let fix =
                    attached::<Hint>(&error).map(|hint| cx.commands.write_out(&hint.0)).unwrap_or_default();
                problems.push(Problem { what: paragraph(&error), fix });
                None
            }
        };
        match manifests {
            Some(manifests) if problems.is_empty() => {
                manifests.warnings.iter().for_each(|warning| step.warn(warning.as_str()));
                let detail = format!("{}, {} objects to apply", choice.kind.name(), manifests.objects.len());
                Ok(Outcome::Already(Checked { manifests }, detail))
            }
            _ => Err(refusal(&problems)),
        }
    })
    .await
}

fn refusal(problems: &[Problem]) -> anyhow::Error {
    if let [Problem { what, fix }] = problems {
        return anyhow!("{what}").hint(fix).exit(Exit::Preflight);
    }
    let mut text = format!("{} problems:", problems.len());
    for Problem { what, fix } in problems {
        let _ = write!(text, "\n  - {what}\n    {fix}");
    }
    anyhow!("{text}").exit(Exit::Preflight)
}
