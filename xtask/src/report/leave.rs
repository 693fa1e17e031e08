//! The page of a run that has just ended: left beside its records, named, and opened where that is asked for.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use crate::cx::Cx;
use crate::options::Format;
use crate::proc;
use crate::summary::Summary;

/// Leaves it; the summary says where, and what of the run was not recorded.
pub fn leave(cx: &Cx, summary: &mut Summary, gaps: &[String], open: bool) {
    let Some(dir) = &cx.run_dir else { return };
    for gap in gaps {
        cx.output.note(&format!("warning: missing: {gap}"));
    }
    let mut all: Vec<Value> = summary.get("gaps").and_then(Value::as_array).cloned().unwrap_or_default();
    all.extend(gaps.iter().map(|gap| json!(gap)));
    summary.insert("gaps".into(), all.into());
    summary.entry("run").or_insert(json!(dir));
    let page = super::write(dir, Some(summary.clone())).context("drawing the report");
    summary.insert("report".into(), json!(page.as_ref().ok()));
    match page {
        // A load is run for it; of another run it is of interest where something went wrong.
        Ok(page) => {
            let measures = ["scheduled", "prove"].iter().any(|field| summary.contains_key(*field));
            let is_wanted = measures || summary.get("ok") != Some(&Value::Bool(true));
            show(cx, &page, open, is_wanted);
        }
        Err(error) => cx.output.note(&format!("warning: there is no report: {error:#}")),
    }
}

fn show(cx: &Cx, page: &Path, open: bool, is_wanted: bool) {
    let mut how = String::new();
    if open {
        how = match browse(page) {
            Ok(()) => " (opened)".to_owned(),
            Err(why) => format!(" (not opened: {why:#})"),
        };
    }
    if open || is_wanted && cx.shared.output == Format::Human {
        cx.output.note(&format!("report: {}{how}", cx.short(page)));
    }
}

fn browse(page: &Path) -> Result<()> {
    let name = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let has_desktop = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|v| std::env::var_os(v).is_some());
    if !has_desktop {
        return Err(anyhow!("there is no desktop here"));
    }
    let program = which::which(name).map_err(|_| anyhow!("there is no `{name}` on PATH"))?;
    let shell = proc::shell()?;
    // The browser stays when this program has ended.
    proc::daemon(xshell::cmd!(shell, "{program} {page}").into(), &page.with_file_name("browser.log"))
        .map(drop)
}
