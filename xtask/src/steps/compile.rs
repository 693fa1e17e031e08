//! The app is compiled while the cluster starts. One that runs may have the image already, and is asked first.

use anyhow::Result;

use crate::clusters::Kind;
use crate::failure::{is_echo, paragraph};
use crate::image::{self, Compiled};
use crate::pipeline::{Branch, Done, Outcome, step};
use crate::plan::Planned;

/// Its name.
const NAME: &str = "compile";

/// What it would do.
///
/// # Errors
/// When there is no current folder.
pub fn plan(kind: &Kind) -> Result<Planned> {
    let command = match kind.compiles() {
        Some(linkage) => format!("if the cluster does not run: {}", image::compile_command(linkage)?),
        None => "nothing: the image's build compiles the app".to_owned(),
    };
    Ok(Planned::step(NAME, vec![command]))
}

/// Compiles the app, where that is needed in any case and can be done here.
///
/// # Errors
/// When the run is told to stop; that it does not compile is the image's to tell.
pub async fn run(branch: &mut Branch<'_>, kind: &Kind) -> Result<Done<Option<Compiled>>> {
    let cx = branch.cx;
    step(branch, NAME, async |step| {
        let skipped = |why: &str| Ok(Outcome::Already(None, format!("skipped: {why}")));
        let Some(linkage) = kind.compiles() else { return skipped("the image's build compiles the app") };
        if kind.seems_to_run().await {
            return skipped("the cluster runs, and is asked for the image first");
        }
        let sources = image::sources_hash(&cx.root)?;
        match image::compile(cx, step, linkage).await {
            Ok(binary) => {
                let how = format!("compiled to {}", cx.short(&binary));
                Ok(Outcome::Did(Some(Compiled { sources, binary }), how))
            }
            Err(error) if is_echo(&error) => Err(error),
            // A cluster that is being made is not given up for it: the image's step comes to the same, and tells it.
            Err(error) => Ok(Outcome::Bad(None, paragraph(&error))),
        }
    })
    .await
}
